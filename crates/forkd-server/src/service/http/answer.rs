//! An answer and its consequences: what becomes of the content of the request, and whether the connection goes
//! on.

use std::time::SystemTime;

use super::content::Content;
use super::fields::Framed;
use super::request::{Method, Request};
use super::response::{self, Refusal, Response, Status};
use super::target::Target;

/// The longest content of a request that is read, and thrown away, to keep the connection, in bytes.
const CONTENT: u64 = 64 * 1024;

/// What is done with a GET or HEAD: all else is the same for each server of HTTP.
pub trait Responder {
    /// Answers one. The answer to HEAD may have content, which is left out.
    fn respond(&mut self, request: &Request<'_>, target: &Target<'_>, now: SystemTime) -> Response;

    /// Is told how a request is answered, and the beginning of its first line.
    fn answered(&mut self, response: &Response, line: &[u8]) {
        let _ = (response, line);
    }
}

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Open,
    /// It ends after what is being sent.
    Last,
}

/// An answer, and how it goes on after it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) is_head: bool,
    pub(super) is_old: bool,
    /// Whether the client waits to be told that it may send the content.
    pub(super) continues: bool,
    pub(super) stage: Stage,
    /// Whether the client sends no more (RFC 9112, section 9.6): the request has asked for the end of the connection,
    /// and has no content.
    pub(super) client_leaves: bool,
}

impl Answer {
    /// The answer to a request, and the content of that which is to be read before it is given.
    pub(super) fn to(request: &Request<'_>, responder: &mut dyn Responder, is_last: bool) -> (Self, Content) {
        let response = respond(request, responder);
        let has_content = request.content != Framed::Length(0);
        let expects = has_content && request.expects;
        // a client that is refused before it has sent the content may send it or not (RFC 9110, section 10.1.1)
        let is_left = is_long(request.content) || expects && response.status.is_error();
        let stage = if is_left || is_last || !request.stays { Stage::Last } else { Stage::Open };
        let (is_head, is_old) = (request.method == Method::Head, request.is_old);
        // what follows CONNECT need not be a request
        let client_leaves = !request.stays && !has_content && request.method != Method::Connect;
        let content = Content::new(if is_left { Framed::Length(0) } else { request.content });
        let continues = expects && !is_left;
        (Self { response, is_head, is_old, continues, stage, client_leaves }, content)
    }

    /// Ends the connection.
    pub(super) fn refusing(refusal: Refusal, is_head: bool) -> Self {
        let (response, stage) = (refusal.into(), Stage::Last);
        Self { response, is_head, is_old: false, continues: false, stage, client_leaves: false }
    }
}

fn respond(request: &Request<'_>, responder: &mut dyn Responder) -> Response {
    let why = "there are GET and HEAD";
    match (request.method, &request.target) {
        (Method::Unknown, _) => Refusal::new(Status::NOT_IMPLEMENTED, why).into(),
        (Method::Connect | Method::NotAllowed, _) => {
            let refusal = Response::from(Refusal::new(Status::METHOD_NOT_ALLOWED, why));
            refusal.with("Allow", response::METHODS)
        }
        _ if is_long(request.content) => {
            Refusal::new(Status::CONTENT_TOO_LARGE, "the content is too long").into()
        }
        (Method::Get | Method::Head, Some(target)) => responder.respond(request, target, SystemTime::now()),
        _ => Response::empty(Status::NO_CONTENT).with("Allow", response::METHODS),
    }
}

/// Whether it is said beforehand that there is more content than is read.
fn is_long(content: Framed) -> bool {
    matches!(content, Framed::Length(length) if length > CONTENT)
}
