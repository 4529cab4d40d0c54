//! How a pool gets a worker: by fork(2), and where it is a program by execve(2).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::application::ApplicationPool;
use super::worker::Born;
use super::{Pooling, SPAWN_AT_ONCE};
use crate::events;
use crate::model::pool::{Event, with_jitter};
use crate::model::serve::{Terms, WorkerContext};
use crate::process::context::Context;
use crate::process::program::{Attached, start};
use crate::process::worker as process;
use crate::scoreboard::Place;
use crate::service::application::Application;
use crate::sys::fork::{PidCells, Watch, fork};
use crate::sys::signal::TermHeld;

impl Pooling {
    /// Forks workers, up to `count`; returns how many it has got.
    ///
    /// It takes note of them after the last one. Of each page that the master writes to after a fork the worker has the old
    /// copy, all to itself if that is so after each fork.
    pub(super) fn spawn(&mut self, cx: &mut Context, count: usize) -> usize {
        // on the stack, where it writes anyway
        let mut born: SmallVec<[Born; SPAWN_AT_ONCE]> = SmallVec::new();
        let mut failed = None;
        self.closing.update(&cx.descriptors);
        while born.len() < count && failed.is_none() {
            let Some(index) = cx.board.take(self.context.number, true, cx.now) else { break };
            let number = self.free_number(cx, &born);
            match self.fork_worker(cx, index, number, &born) {
                Ok((watch, attached)) => {
                    cx.board.born(index);
                    born.push(Born { slot: index, number, watch, attached });
                }
                Err(error) => {
                    cx.board.put_back(index);
                    failed = Some(error);
                }
            }
        }
        let endpoint = self.context.listener.endpoint();
        for worker in &born {
            let record = cx.board.record(worker.slot);
            events::worker_started(endpoint, worker.slot, record.pid(), record.place());
        }
        cx.descriptors.add(born.iter().flat_map(Born::descriptors));
        let count = born.len();
        if count > 0 {
            self.application.iter_mut().for_each(|application| application.look_again(cx.now));
        }
        let births = cx.board.totals(self.context.number).forked.load(Ordering::Relaxed);
        self.workers
            .extend(born.into_iter().zip(births..).map(|(worker, birth)| worker.noted(birth, cx.now)));
        if let Some(error) = failed {
            cx.board.totals(self.context.number).fork_failed();
            self.fork_failing = Some(error.raw_os_error().unwrap_or(libc::EAGAIN));
            if self.shortages.begin(cx.now) {
                events::worker_fork_failed(endpoint, &error);
            }
            self.pool.on(Event::ForkFailed, cx.now);
        }
        count
    }

    /// The lowest number that no worker has. It is of interest to those that accept by themselves.
    fn free_number(&self, cx: &Context, born: &[Born]) -> u32 {
        if self.context.service_config.service.as_application().is_none() {
            return 0;
        }
        // of those that stay
        let renewed = self.application.as_ref().and_then(ApplicationPool::renewed);
        let staying = self.workers.iter().filter(|worker| !worker.leaves(cx) && renewed != Some(worker.slot));
        let numbers = staying.map(|worker| worker.number);
        let taken: Vec<u32> = numbers.chain(born.iter().map(|worker| worker.number)).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
    }

    /// Forks one, after those that were `born` just now.
    fn fork_worker(
        &self,
        cx: &Context,
        index: u32,
        number: u32,
        born: &[Born],
    ) -> std::io::Result<(OwnedFd, Option<Box<Attached>>)> {
        cx.oom.require_room()?;
        let slot = cx.board.slot(index);
        let close = self.closing.set();
        let births = cx.board.totals(self.context.number).forked.load(Ordering::Relaxed);
        let place = Place { number, generation: self.generation };
        cx.board.record(index).set_place(self.application.is_some().then_some(place));
        let terms = Terms { limit: with_jitter(self.terms.limit, births), place, ..self.terms };
        let work = WorkerContext {
            context: &self.context,
            udp_filter: &cx.udp_filter,
            board: cx.board,
            slot,
            index,
            ticker: None,
        };
        let (parent, null) = (cx.pid, cx.null.as_ref());
        let (expendable, confinement) = (cx.oom.score(), &*self.confinement);
        let _held = TermHeld::hold();
        let _lent = work.board.lend()?;
        let cells = PidCells { parent: &work.board.record(index).pid, child: Some(&slot.pid) };
        let (child, attached) = match self.context.service_config.service.as_application() {
            Some(Application::Program(program)) => {
                let (attached, output) = Attached::new(program, index)?;
                let setup = start::Setup {
                    program,
                    sockets: self.context.listeners().collect(),
                    place,
                    notify: attached.notify_name()?,
                    output: output.as_ref().map(AsFd::as_fd),
                    parent,
                    expendable,
                };
                let child = fork(&cx.blocked, cells, Watch::Descriptor, || start::live(&setup))?;
                (child, Some(Box::new(attached)))
            }
            _ => {
                let setup = process::Setup { close, born, parent, null, expendable, confinement };
                (fork(&cx.blocked, cells, Watch::Descriptor, || process::live(setup, &work, &terms))?, None)
            }
        };
        let watch = child.watch.ok_or_else(|| std::io::Error::from_raw_os_error(libc::EBADF))?;
        Ok((watch, attached))
    }
}
