//! Descriptors that are no connections: a callback runs when one is readable.

use std::io;
use std::os::fd::AsFd;

use super::{Reactor, Source};
use crate::slab::Key;
use crate::sys::poller::Interest;

/// A descriptor, and the callback for when it is readable.
pub(super) struct Watch<'a> {
    fd: Box<dyn AsFd + 'a>,
    mode: Mode,
    callback: Box<dyn FnMut(&mut Reactor<'a>) + 'a>,
}

/// How often it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// While it is readable.
    Level,
    /// Whenever something has come.
    Edge,
}

impl<'a> Reactor<'a> {
    /// Calls `callback` whenever the descriptor is readable, until that is [no longer
    /// wanted](Self::unwatch).
    pub(crate) fn watch(
        &mut self,
        fd: impl AsFd + 'a,
        callback: impl FnMut(&mut Self) + 'a,
    ) -> io::Result<Key> {
        self.watch_in(Mode::Level, fd, callback)
    }

    /// Calls `callback` once whenever something has come that can be read, and at first if something is there.
    pub(crate) fn watch_arrivals(
        &mut self,
        fd: impl AsFd + 'a,
        callback: impl FnMut(&mut Self) + 'a,
    ) -> io::Result<Key> {
        self.watch_in(Mode::Edge, fd, callback)
    }

    fn watch_in(
        &mut self,
        mode: Mode,
        fd: impl AsFd + 'a,
        callback: impl FnMut(&mut Self) + 'a,
    ) -> io::Result<Key> {
        let watch = Watch { fd: Box::new(fd), mode, callback: Box::new(callback) };
        let key = self.sources.insert(Source::Watch(watch));
        let Some(Source::Watch(watch)) = self.sources.get_mut(key) else { return Ok(key) };
        let added = match mode {
            Mode::Level => self.pollers.add(&*watch.fd, key.token(), Interest::READ),
            Mode::Edge => self.pollers.add_edge(&*watch.fd, key.token()),
        };
        if added.is_err() {
            self.sources.remove(key);
        }
        added.map(|()| key)
    }

    pub(crate) fn unwatch(&mut self, key: Key) {
        let source = self.sources.remove(key);
        self.forget(source);
    }

    pub(super) fn call_watch(&mut self, key: Key) {
        let Some(mut source) = self.sources.lend(key) else { return };
        if let Source::Watch(watch) = &mut source {
            (watch.callback)(self);
        }
        // it may be unwanted by now
        let unwanted = self.sources.put_back(key, source);
        self.forget(unwanted);
    }

    /// Others may have the descriptor of a watch, too, so that closing it would not be enough.
    fn forget(&self, source: Option<Source<'a>>) {
        if let Some(Source::Watch(watch)) = source {
            let interest = match watch.mode {
                Mode::Level => Interest::READ,
                Mode::Edge => Interest::BOTH,
            };
            let _ = self.pollers.remove(&*watch.fd, interest);
        }
    }
}
