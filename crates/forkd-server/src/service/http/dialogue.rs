//! A connection, from its first byte to its last: requests are taken in, and answered in order.
//!
//! Invariant: no I/O, and what is answered depends on the bytes alone and not on how they came. An answer is given
//! when the request is whole, its content too: so one whose content turns out to be broken is refused, and no
//! client hears two answers to one request.

use std::time::{Instant, SystemTime};

use super::answer::{Answer, Responder, Stage};
use super::content::Content;
use super::request;
use super::response::{Refusal, Status, make_room};
use super::router::SMALL;
use super::timeouts::{Timeouts, Wait};
use crate::Reply;
use crate::transport::{FilePart, Offence};

/// The most bytes of empty lines before a request: a client that sends nothing else would never be late.
pub(super) const BLANK: usize = 16;

/// The most bytes of a request that a line of the log shows.
const SHOWN: usize = 200;

/// What has been said on a connection so far, as far as it matters.
#[derive(Debug, Clone, Default)]
pub struct Dialogue {
    pub(super) timeouts: Timeouts,
    /// What has come and was not yet looked at, from the beginning of a request on.
    pub(super) input: Vec<u8>,
    /// The request whose content is still to come.
    waiting: Option<Box<Waiting>>,
    /// So many bytes of empty lines have come before the request.
    blank: usize,
    /// So many requests were answered.
    answered: u32,
    /// So many bytes of the input are no whole head.
    looked_at: usize,
    pub(super) output: Vec<u8>,
    /// What follows the output.
    file: Option<FilePart>,
    /// What is on its way.
    sent: Option<FilePart>,
    stage: Stage,
    /// The client has asked for the end, and sent nothing behind that.
    pub(super) client_is_done: bool,
    /// What the client has done wrong.
    pub(super) offence: Option<Offence>,
}

/// A request without its content, which is thrown away as it comes.
#[derive(Debug, Clone)]
struct Waiting {
    answer: Answer,
    content: Content,
    /// The beginning of its first line.
    line: Vec<u8>,
}

impl Dialogue {
    /// One that ends with the answer to the first request.
    pub fn of_one_request() -> Self {
        let mut dialogue = Self::default();
        dialogue.timeouts.limits.requests = 1;
        dialogue
    }

    /// Takes what has come.
    pub fn received(&mut self, responder: &mut dyn Responder, input: &[u8]) -> Reply<'_> {
        make_room(&mut self.input, input.len());
        self.input.extend_from_slice(input);
        self.answer(responder)
    }

    /// Says what follows what was sent.
    pub fn resume(&mut self, responder: &mut dyn Responder) -> Reply<'_> {
        self.sent = None;
        match self.file.take() {
            Some(part) => Reply::File(self.sent.insert(part)),
            None if self.stage == Stage::Last => Reply::Finish(b""),
            None => self.answer(responder),
        }
    }

    /// The client sends no more. If it is in the middle of a request, it is told.
    pub fn ended(&mut self, responder: &mut dyn Responder) -> Reply<'_> {
        self.give_up(responder, Refusal::bad("it ends in the middle"))
    }

    /// The client has not sent anything in time.
    pub(super) fn timed_out(&mut self, responder: &mut dyn Responder) -> Reply<'_> {
        self.give_up(responder, Refusal::new(Status::REQUEST_TIMEOUT, "the request takes too long"))
    }

    fn give_up(&mut self, responder: &mut dyn Responder, refusal: Refusal) -> Reply<'_> {
        self.output.clear();
        if let Wait::Head(_) | Wait::Content(_) = self.wait() {
            self.refuse(responder, refusal);
        }
        Reply::Finish(&self.output)
    }

    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        self.timeouts.until(self.wait(), now)
    }

    fn wait(&self) -> Wait {
        match self.answered {
            _ if self.waiting.is_some() => Wait::Content(self.answered),
            _ if !self.input.is_empty() => Wait::Head(self.answered),
            0 => Wait::First,
            _ => Wait::Next(self.answered),
        }
    }

    /// Answers what has come, one request after the other, until there is enough to be sent.
    fn answer(&mut self, responder: &mut dyn Responder) -> Reply<'_> {
        self.output.clear();
        while self.stage == Stage::Open && self.file.is_none() && !self.is_full() {
            let goes_on = if self.waiting.is_some() { self.content(responder) } else { self.head(responder) };
            if !goes_on {
                break;
            }
        }
        match self.stage {
            Stage::Last if self.file.is_none() => Reply::Finish(&self.output),
            _ if self.output.is_empty() => Reply::Wait,
            _ if self.file.is_some() => Reply::More(&self.output),
            Stage::Open if self.is_full() => Reply::More(&self.output),
            _ => Reply::Send(&self.output),
        }
    }

    fn is_full(&self) -> bool {
        self.output.len() >= SMALL as usize
    }

    /// Takes a head from the input; false if there is none yet.
    fn head(&mut self, responder: &mut dyn Responder) -> bool {
        self.skip_blank();
        if !self.is_worth_a_look() {
            return false;
        }
        let is_last = self.answered + 1 >= self.timeouts.limits.requests;
        let parsed = request::parse(&self.input)
            .map(|whole| whole.map(|(request, length)| (Answer::to(&request, responder, is_last), length)));
        match parsed {
            Ok(None) => {
                self.looked_at = self.input.len();
                return false;
            }
            Ok(Some(((answer, content), length))) => {
                if answer.continues {
                    self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                if content.is_over() {
                    responder.answered(&answer.response, line(&self.input));
                    self.take(length);
                    self.say(answer);
                } else {
                    let line = line(&self.input).to_vec();
                    self.take(length);
                    self.waiting = Some(Box::new(Waiting { answer, content, line }));
                }
            }
            Err(refusal) => self.refuse(responder, refusal),
        }
        true
    }

    /// Takes content from the input; false if there is more to come.
    fn content(&mut self, responder: &mut dyn Responder) -> bool {
        let Some(waiting) = &mut self.waiting else { return true };
        match waiting.content.take(&self.input) {
            Ok(taken) => {
                let is_over = waiting.content.is_over();
                self.take(taken);
                if is_over && let Some(waiting) = self.waiting.take() {
                    responder.answered(&waiting.answer.response, &waiting.line);
                    self.say(waiting.answer);
                }
                is_over
            }
            Err(refusal) => {
                self.refuse(responder, refusal);
                true
            }
        }
    }

    fn take(&mut self, length: usize) {
        self.input.drain(..length);
        self.looked_at = 0;
    }

    /// Throws away the empty lines that some clients send after a request (RFC 9112, section 2.2).
    fn skip_blank(&mut self) {
        let blank = self.input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        // what is beyond measure is left, and is no request
        let blank = blank.min(BLANK - self.blank);
        self.blank += blank;
        self.input.drain(..blank);
    }

    /// Whether there may be a head now, or one that is too long, where there was none before: a client
    /// that sends a byte at a time shall not have all of it parsed each time.
    fn is_worth_a_look(&self) -> bool {
        let (before, now) = (self.looked_at, self.input.len());
        let passes = |limit: usize| before <= limit && now > limit;
        before == 0
            || passes(request::LINE)
            || passes(request::HEAD)
            || self.input.get(before..).is_none_or(|new| new.contains(&b'\n'))
    }

    /// Answers the request in hand with a refusal, which ends the connection. HEAD is answered without content,
    /// whatever is wrong with the rest of it (RFC 9110, section 9.3.2).
    fn refuse(&mut self, responder: &mut dyn Responder, refusal: Refusal) {
        let waiting = self.waiting.take();
        let (line, is_head) = match &waiting {
            Some(waiting) => (waiting.line.as_slice(), waiting.answer.is_head),
            None => (line(&self.input), self.input.starts_with(b"HEAD ")),
        };
        self.offence = match refusal.status {
            Status::BAD_REQUEST => Some(Offence::Protocol),
            Status::REQUEST_TIMEOUT => Some(Offence::Timeout),
            _ => None,
        };
        let answer = Answer::refusing(refusal, is_head);
        responder.answered(&answer.response, line);
        self.say(answer);
    }

    fn say(&mut self, answer: Answer) {
        let connection = match answer.stage {
            Stage::Open if answer.is_old => Some("keep-alive"),
            Stage::Open => None,
            Stage::Last => Some("close"),
        };
        let now = SystemTime::now();
        self.file = answer.response.write(&mut self.output, answer.is_head, connection, now);
        self.stage = answer.stage;
        // a large file is on its way for long, and would be lost if there was more after all
        self.client_is_done = answer.client_leaves && self.input.is_empty() && self.file.is_none();
        self.blank = 0;
        self.answered += 1;
        if self.stage != Stage::Open {
            self.input = Vec::new();
        }
    }
}

/// The first line of a request, or the beginning of that.
fn line(input: &[u8]) -> &[u8] {
    let line = input.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    line.get(..SHOWN).unwrap_or(line)
}
