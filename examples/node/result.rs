//! The result objects of the methods: a class, the state of the record, whether it was told before, and what belongs to it.

use ibid::{Class, Status};
use serde_json::{Map, Value};

/// `{"class":..,"state":..,"replayed":..}`, to be added to.
pub(crate) struct Answer(Map<String, Value>);

impl Answer {
    /// With this state, or none where there is no record or it does not matter.
    pub(crate) fn success(state: Option<Status>) -> Self {
        Self::of("success", state)
    }

    pub(crate) fn refused(class: Class, state: Option<Status>) -> Self {
        Self::of(class.name(), state)
    }

    fn of(class: &str, state: Option<Status>) -> Self {
        Self(Map::new()).with("class", class).with("state", state.map(Status::name)).with("replayed", false)
    }

    pub(crate) fn replayed(self, replayed: bool) -> Self {
        self.with("replayed", replayed)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }
}

impl From<Answer> for Value {
    fn from(Answer(members): Answer) -> Self {
        Self::Object(members)
    }
}
