//! `haar guest console`: the guest's serial console on this terminal, in raw mode. Ctrl-] leaves it.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use haar_api::client::Duplex;
use haar_api::table as t;
use nix::sys::termios::{self, SetArg, Termios};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::context::Context;
use super::failure::Failure;
use super::guest::Guests;
use super::noun;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

pub(crate) async fn run(context: &Context, guest: &str) -> Result<(), Failure> {
    let reference = noun::resolve::<Guests>(context, guest).await?;
    let call = context.client.request::<t::GuestConsole>(&[&reference]).query(noun::in_project(context));
    let stream: Duplex = call.upgrade().await?;
    eprintln!("  console of {guest}; Ctrl-] leaves it");
    let raw = RawTerminal::enter()?;
    let ended = splice(stream, tokio::io::stdin(), tokio::io::stdout()).await;
    drop(raw);
    match ended {
        Ok(End::Left) => eprintln!("\r\n  left the console of {guest}; the guest runs on"),
        Ok(End::Closed) => eprintln!("\r\n  the console of {guest} was closed at its end"),
        Err(error) => return Err(Failure::local("the console broke", error)),
    }
    Ok(())
}

/// How a console ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By Ctrl-], or because there is no more input.
    Left,
    /// By the other side.
    Closed,
}

/// Copies both ways until one side ends it.
async fn splice<S, I, O>(stream: S, mut input: I, mut output: O) -> std::io::Result<End>
where
    S: AsyncRead + AsyncWrite,
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let mut typed = vec![0; 1024];
    let mut shown = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = from_guest.read(&mut shown) => match read? {
                0 => return Ok(End::Closed),
                count => {
                    output.write_all(&shown[..count]).await?;
                    output.flush().await?;
                }
            },
            read = input.read(&mut typed) => {
                let count = read?;
                let typed = &typed[..count];
                let end = typed.iter().position(|byte| *byte == ESCAPE);
                to_guest.write_all(&typed[..end.unwrap_or(count)]).await?;
                to_guest.flush().await?;
                if end.is_some() || count == 0 {
                    return Ok(End::Left);
                }
            }
        }
    }
}

/// The terminal in raw mode; as it was before once this is dropped.
struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Does nothing when standard input is no terminal.
    fn enter() -> Result<RawTerminal, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(RawTerminal { before: None });
        }
        let failed = |error: nix::Error| Failure::local("cannot put the terminal into raw mode", error);
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(RawTerminal { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nobody is left to be told; the shell sets its own mode anyway.
            let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_escape_leaves_and_what_came_before_it_is_sent() {
        let (guest, mut far) = tokio::io::duplex(64);
        let mut shown = Vec::new();
        far.write_all(b"login: ").await.unwrap();
        let input: &[u8] = b"root\n\x1dnever";
        let ended = splice(guest, input, &mut shown).await.unwrap();
        assert_eq!(ended, End::Left);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"root\n");
    }

    #[tokio::test]
    async fn a_guest_that_goes_away_ends_the_console() {
        let (guest, mut far) = tokio::io::duplex(64);
        far.write_all(b"bye").await.unwrap();
        drop(far);
        let (input, _keep) = tokio::io::duplex(1);
        let mut shown = Vec::new();
        assert_eq!(splice(guest, input, &mut shown).await.unwrap(), End::Closed);
        assert_eq!(shown, b"bye");
    }
}
