//! The menu dialogue of the textbook: a greeting, numbers that are answered, and a word that ends it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::messages::{Framing, Messages};
use super::{Protocol, Reply, Service};
use crate::transport::Peer;

/// What a menu says.
///
/// ```
/// use forkd::service::{Framing, Menu, Texts};
/// let answers = [("1".to_owned(), "one".to_owned())].into();
/// let menu = Menu::new(Texts { answers, exit: "bye".into(), ..Texts::default() }, Framing::Line);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// To whom connects.
    pub greeting: String,
    /// To each of these entries.
    pub answers: BTreeMap<String, String>,
    /// To any other entry.
    pub again: String,
    /// The entry that ends the dialogue.
    pub exit: String,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            greeting: "Welcome to connect 10086".into(),
            answers: [("0".into(), "You are being put through to an operator".into())].into(),
            again: "Please choose again".into(),
            exit: "exit".into(),
        }
    }
}

/// Asks, and answers what is entered, until that is the word that ends it.
///
/// ```
/// use forkd::{Protocol, Reply, service::{Framing, Menu, Texts}};
/// let mut menu = Menu::new(Texts::default(), Framing::Line);
/// assert_eq!(menu.received(b"7\n"), Reply::Send(b"Please choose again\n"));
/// assert_eq!(menu.received(b"exit\n"), Reply::Finish(b""));
/// ```
#[derive(Debug, Clone)]
pub struct Menu {
    texts: Arc<Texts>,
    messages: Messages,
    output: Vec<u8>,
}

impl Menu {
    /// A dialogue with these texts, whose entries are told apart by `framing`.
    #[must_use]
    pub fn new(texts: Texts, framing: Framing) -> Self {
        Self { texts: texts.into(), messages: Messages::new(framing), output: Vec::new() }
    }

    fn answer(&mut self, input: &[u8]) -> Reply<'_> {
        self.output.clear();
        let mut goes_on = true;
        self.messages.feed(input, |entry| {
            let entry = String::from_utf8_lossy(entry);
            let entry = entry.trim();
            goes_on = entry != self.texts.exit;
            if goes_on {
                let answer = self.texts.answers.get(entry).unwrap_or(&self.texts.again);
                say(&mut self.output, answer);
            }
            goes_on
        });
        match (goes_on, self.output.is_empty()) {
            (false, _) => Reply::Finish(&self.output),
            (true, true) => Reply::Wait,
            (true, false) => Reply::Send(&self.output),
        }
    }
}

fn say(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(text.as_bytes());
    output.push(b'\n');
}

impl Protocol for Menu {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        self.output.clear();
        say(&mut self.output, &self.texts.greeting);
        Reply::Send(&self.output)
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.answer(input)
    }

    fn ended(&mut self) -> Reply<'_> {
        match self.messages.rest() {
            Some(rest) => match self.answer(&[&rest[..], b"\n"].concat()) {
                Reply::Send(bytes) => Reply::Finish(bytes),
                other => other,
            },
            None => Reply::Finish(b""),
        }
    }
}

impl From<Menu> for Service {
    fn from(menu: Menu) -> Self {
        Self::protocol("menu", move || menu.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu() -> Menu {
        Menu::new(Texts::default(), Framing::Read)
    }

    #[test]
    fn the_dialogue_of_the_textbook() {
        let mut menu = menu();
        assert_eq!(menu.connected(Peer::None), Reply::Send(b"Welcome to connect 10086\n"));
        assert_eq!(menu.received(b"0"), Reply::Send(b"You are being put through to an operator\n"));
        assert_eq!(menu.received(b"9\r\n"), Reply::Send(b"Please choose again\n"));
        assert_eq!(menu.received(b"exit"), Reply::Finish(b""));
    }

    #[test]
    fn what_follows_the_end_is_not_answered() {
        let expected = b"You are being put through to an operator\n";
        assert_eq!(menu().received(b"0\nexit\n0\n"), Reply::Finish(expected));
    }

    #[test]
    fn an_entry_without_an_end_is_answered_at_the_end() {
        let mut menu = Menu::new(Texts::default(), Framing::Line);
        assert_eq!(menu.received(b"0"), Reply::Wait);
        assert_eq!(menu.ended(), Reply::Finish(b"You are being put through to an operator\n"));
        assert_eq!(menu.received(b"exit"), Reply::Wait);
        assert_eq!(menu.ended(), Reply::Finish(b""));
    }
}
