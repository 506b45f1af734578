//! Typed answers, in the one format in which [`Engine::run`](crate::Engine::run) keeps them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::outcome::{End, Ended, Failure, Outcome, Reason};
use crate::store;

impl Ended {
    /// Completed with this answer, for a flow whose requests are [run](crate::Engine::run) with answers of this type: what such an
    /// operation would have returned, for [`resolve`](crate::Engine::resolve) or an [oracle](crate::Builder::oracle) to say.
    ///
    /// # Errors
    /// [`Encode`](ErrorKind::Encode): serde cannot encode it.
    pub fn answer<A: Serialize + ?Sized>(answer: &A) -> Result<Self, Error> {
        Ok(Self::Completed(encode(answer)?.into()))
    }
}

impl Outcome {
    /// The answer as this type, of a flow whose requests are [run](crate::Engine::run): for what [`track`](crate::Engine::track) gives.
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode): it is none of this type, or of a flow of bytes.
    pub fn decode<A: DeserializeOwned>(&self) -> Result<Outcome<A>, Error> {
        let answer = store::from_bytes(&self.answer).map_err(|error| Error::caused_by(ErrorKind::Decode, error))?;
        Ok(Outcome { how: self.how, answer })
    }
}

/// The bytes of a request or an answer.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    store::to_bytes(value).map_err(|error| Error::caused_by(ErrorKind::Encode, error))
}

/// How an operation with a typed answer ends.
pub(crate) fn encoded<A: Serialize>(ended: Result<A, Failure>) -> End {
    match ended.map(|answer| store::to_bytes(&answer)) {
        Ok(Ok(answer)) => End::done(answer),
        // The effect is there, its answer is not: in doubt.
        Ok(Err(error)) => End::Unknown(Reason::from_error(error)),
        Err(Failure(end)) => end,
    }
}
