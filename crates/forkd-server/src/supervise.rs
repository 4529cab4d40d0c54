//! What a program needs that is a daemon of its own kind, as `forkd` is: the master without the [`Server`](crate::Server)
//! around it, and a reader of the scoreboard.
//!
//! It is outside the promise of semantic versioning: it changes with that program.

pub use crate::access::early_drop::EarlyDrop;
pub use crate::access::gcra::Rate;
pub use crate::access::listing::{KnownSource, Listing, Refused};
pub use crate::access::penalty::{Penalties, Penalty};
pub use crate::access::rules::{Decision, Rule, Rules};
pub use crate::access::source::Prefixes;
pub use crate::access::{AccessSpec, ProxySpec};
pub use crate::process::attendant::{Attendant, Duties, Limits};
pub use crate::process::companion::{Companion, Notice};
pub use crate::process::lifecycle::StopTimes;
pub use crate::process::master::Master;
pub use crate::process::reload::{Generation, Source};
pub use crate::process::sample::{ListenerSample, STATES, Sample};
pub use crate::process::saved::{SavedMaster, SavedPart};
pub use crate::process::sockets::{Bound, bind, tell_of_seclusion};
#[cfg(feature = "coroutine")]
pub use crate::process::stdin::Stdin;
pub use crate::process::upgrade::{Replacement, Request as UpgradeRequest};
pub use crate::process::view::{AcceptedBy, Activity, ChildActivity, Socket, View, WorkerActivity};
pub use crate::processors::Processors;
pub use crate::scoreboard::{Bounds, CONNECTIONS, Cause, LIFETIMES, Lengths, Scoreboard, Stage, State, Sums};
#[cfg(feature = "http")]
pub use crate::service::http::{
    Dialogue, Refusal as HttpRefusal, Request, Responder, Response, Status, Target, made, parts,
};
pub use crate::spec::{ListenerSpec, MAX_LIFETIME, ModelSpec, Suits, Upkeep};
pub use crate::transport::arrivals::Arrivals;
pub use crate::transport::bind::{
    BindOptions, Holder, KEEP_ALIVE, KEEP_ALIVE_RANGE, bind_all, cannot_bind_unix,
};
pub use crate::transport::inherited::Inherited;
pub use crate::transport::listener::{Kind, Listener};
pub use crate::transport::offence::Offence;
pub use crate::transport::refusal::Refusal;
pub use crate::transport::saved_socket::SavedSocket;
pub use crate::transport::timed_out::TimedOut;
pub use crate::transport::udp_filter::UdpFilter;
