//! How both servers begin: flags, messages, exit status, the socket.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpSocket};

use super::args::{Args, USAGE};

/// Wrong flags, or something that cannot be opened.
const CANNOT_START: u8 = 2;
/// Connections that wait to be accepted. The usual 128 lose some where a thousand come at once.
const BACKLOG: u32 = 4096;

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

/// Here only, on this port; 0 picks one.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // A port that was in use a moment ago is free.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}
