//! An answer and its consequences: whether the connection goes on after it.

use std::time::SystemTime;

use super::request::{Body, Method, Request};
use super::response::{Refusal, Response};
use super::site::{Site, is_short};

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Open,
    /// It ends after what is being sent.
    Last,
}

/// An answer, and how it goes on after it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) now: SystemTime,
    pub(super) is_head: bool,
    pub(super) is_old: bool,
    /// Whether the client waits to be told that it may send the content.
    pub(super) continues: bool,
    /// How many bytes of content follow the request.
    pub(super) content: u64,
    pub(super) stage: Stage,
}

impl Answer {
    pub(super) fn to(request: &Request<'_>, site: &Site, is_last: bool) -> Self {
        let now = SystemTime::now();
        let response = site.answer(request, now);
        let has_content = request.body != Body::Length(0);
        let is_refused = response.status.is_error();
        // who is refused before it has sent the content may send it or not (RFC 9110, section 10.1.1)
        let is_unclear = has_content && request.expects && is_refused;
        let (content, stage) = match request.body {
            Body::Length(content) if is_short(request.body) && !is_unclear => {
                (content, if request.stays && !is_last { Stage::Open } else { Stage::Last })
            }
            _ => (0, Stage::Last),
        };
        let continues = has_content && request.expects && !is_refused;
        let (is_head, is_old) = (request.method == Method::Head, request.is_old);
        Self { response, now, is_head, is_old, continues, content, stage }
    }

    /// As a number.
    pub(super) fn status(&self) -> u16 {
        self.response.status.0
    }

    pub(super) fn refusing(refusal: Refusal) -> Self {
        let (response, now, stage) = (refusal.into(), SystemTime::now(), Stage::Last);
        Self { response, now, is_head: false, is_old: false, continues: false, content: 0, stage }
    }
}
