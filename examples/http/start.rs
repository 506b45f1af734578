//! How both servers begin: flags, messages, exit status.

use std::error::Error;
use std::process::ExitCode;

use super::args::{Args, USAGE};

/// Wrong flags, or something that cannot be opened.
const CANNOT_START: u8 = 2;

/// Runs a server until it has closed its file.
pub(crate) fn start(serve: impl FnOnce(Args) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(CANNOT_START);
        }
    };
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot start: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}
