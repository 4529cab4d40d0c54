//! Batches of datagrams: recvmmsg(2), sendmmsg(2) and the control messages that go with them.
//!
//! Written here because the wrappers of nix do not rearm control buffers between calls and share
//! one control list over a whole batch. Each message of a [`Batch`] has its own payload buffer,
//! address and control buffer; all header fields are set anew before each receive.

mod control;

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use control::{Control, Envelope};

use super::calls::is_forbidden_io;

/// Whether to wait for the first datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until one comes.
    Wait,
    /// Not at all: `WouldBlock` if there is none.
    DontWait,
}

/// Where a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A UDP peer; v4-mapped addresses are shown as IPv4.
    Ip(SocketAddr),
    /// A Unix socket with an address to answer to.
    Unix,
    /// A Unix socket without one.
    Unnamed,
}

/// One received datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// What it carries.
    pub payload: &'a [u8],
    /// Where it came from.
    pub source: Source,
    /// The address that it was sent to, if the socket asked for it (`IP_PKTINFO`).
    pub destination: Option<Destination>,
    /// The hop limit (IPv4: TTL) that it arrived with, if the socket asked for it.
    pub hops: Option<u8>,
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// What `IP_PKTINFO` tells of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The destination in the packet's header.
    pub header: IpAddr,
    /// The local address that it reached, from which an answer must leave.
    pub local: IpAddr,
}

/// The most datagrams in one segmented send (`UDP_MAX_SEGMENTS` of udp(7)), and the most bytes.
const MAX_SEGMENTS: usize = 64;
const MAX_SEGMENTED: usize = 65_000;

/// A message, and how many bytes of it there are.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
use libc::mmsghdr as Header;

/// A message, and how many bytes of it there are, where no call takes several.
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
#[derive(Clone, Copy)]
struct Header {
    msg_hdr: libc::msghdr,
    msg_len: u32,
}

/// Buffers for a number of datagrams of up to `size` bytes each.
pub struct Batch {
    size: usize,
    /// Untouched pages cost nothing: the allocator maps zeroed memory lazily.
    payloads: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<Header>,
    envelopes: Vec<Envelope>,
    /// Datagrams that go back as they came, in ascending order, with the hop limit of the answer.
    queue: Vec<(usize, Option<u8>)>,
    /// What is sent for the queue: a header for each run of datagrams that can go as one.
    out: Vec<Header>,
    runs: Vec<usize>,
}

// SAFETY: the pointers in the headers lead to the batch's own vectors, whose memory stays where it is when
// the batch moves, and which nothing else points to.
unsafe impl Send for Batch {}

impl Batch {
    /// Makes room for `capacity` datagrams of `size` bytes each.
    pub fn new(capacity: usize, size: usize) -> Self {
        // SAFETY: these C structs consist of integers and pointers, for which zero is a value.
        let (name, iovec, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            size,
            payloads: vec![0; capacity * size],
            names: vec![name; capacity],
            controls: vec![Control([0; 128]); capacity],
            iovecs: vec![iovec; capacity],
            headers: vec![header; capacity],
            envelopes: vec![Envelope::EMPTY; capacity],
            queue: Vec::with_capacity(capacity),
            out: Vec::with_capacity(capacity),
            runs: Vec::with_capacity(capacity),
        }
    }

    /// How many datagrams it has room for.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Points message `i`'s header at its buffers, all of them empty and at full size.
    fn arm(&mut self, i: usize) {
        self.iovecs[i] =
            libc::iovec { iov_base: self.payloads[i * self.size..].as_mut_ptr().cast(), iov_len: self.size };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_name = (&raw mut self.names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[i];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut self.controls[i]).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_flags = 0;
    }

    /// Notes what came with the first `count` datagrams.
    fn read_envelopes(&mut self, count: usize) {
        for i in 0..count {
            self.envelopes[i] = Envelope::read(&self.headers[i].msg_hdr, &self.names[i]);
        }
        self.queue.clear();
    }

    /// Receives one datagram; quicker than a batch of one.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub fn receive_one(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<()> {
        self.arm(0);
        let flags = if patience == Patience::Wait { 0 } else { libc::MSG_DONTWAIT };
        // SAFETY: `arm` pointed the header at live buffers of the lengths that it gives.
        let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut self.headers[0].msg_hdr, flags) };
        self.headers[0].msg_len = n.try_into().map_err(|_| io::Error::last_os_error())?;
        self.read_envelopes(1);
        Ok(())
    }

    /// Receives up to `capacity` datagrams, waiting for the first at most; returns how many.
    ///
    /// # Errors
    ///
    /// As recvmmsg(2).
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
    pub fn receive(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<usize> {
        (0..self.capacity()).for_each(|i| self.arm(i));
        let (fd, capacity) = (socket.as_fd().as_raw_fd(), self.capacity());
        let flags = if patience == Patience::Wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: as in `receive_one`, for each of `capacity` headers.
        let n = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), capacity as _, flags as _, ptr::null_mut())
        };
        let count = match usize::try_from(n).map_err(|_| io::Error::last_os_error()) {
            Err(error) if is_forbidden_io(&error) => return self.receive_one(socket, patience).map(|()| 1),
            count => count?,
        };
        self.read_envelopes(count);
        Ok(count)
    }

    /// Elsewhere a batch is one datagram.
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
    pub fn receive(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<usize> {
        self.receive_one(socket, patience).map(|()| 1)
    }

    fn length(&self, i: usize) -> usize {
        (self.headers[i].msg_len as usize).min(self.size)
    }

    /// The `i`th datagram of the last receive.
    pub fn datagram(&self, i: usize) -> Datagram<'_> {
        let Envelope { source, destination, hops, .. } = self.envelopes[i];
        let truncated = self.headers[i].msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let payload = &self.payloads[i * self.size..][..self.length(i)];
        Datagram { payload, source, destination, hops, truncated }
    }

    /// A batch of the `i`th datagram alone, to be answered elsewhere.
    pub fn copy_of(&self, i: usize) -> Self {
        let payload = self.datagram(i).payload;
        let mut copy = Self::new(1, payload.len());
        copy.arm(0);
        copy.payloads.copy_from_slice(payload);
        copy.names[0] = self.names[i];
        copy.envelopes[0] = self.envelopes[i];
        let (to, from) = (&mut copy.headers[0], &self.headers[i]);
        to.msg_len = from.msg_len;
        to.msg_hdr.msg_namelen = from.msg_hdr.msg_namelen;
        to.msg_hdr.msg_flags = from.msg_hdr.msg_flags;
        copy
    }

    /// Answers the `i`th datagram with `payload`, from the address that was asked.
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    pub fn answer(
        &self,
        i: usize,
        socket: impl AsFd,
        payload: &[u8],
        hops: Option<u8>,
        patience: Patience,
    ) -> io::Result<()> {
        let mut control = self.controls[i];
        let mut iovec = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        let mut header = self.headers[i].msg_hdr;
        header.msg_control = (&raw mut control).cast();
        header.msg_iov = &raw mut iovec;
        self.envelopes[i].address_answer(&mut header, hops, None);
        // SAFETY: the header points at live buffers; sendmsg only reads through `iov_base`.
        let n = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, send_flags(patience)) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sets the `i`th datagram to go back as it came; [`Batch::send_back`] sends all that are set.
    pub fn queue_back(&mut self, i: usize, hops: Option<u8>) {
        self.queue.push((i, hops));
    }

    /// Sends what was set to go back; returns how many datagrams, and how many bytes, could be sent.
    pub fn send_back(&mut self, socket: impl AsFd, patience: Patience) -> (usize, u64) {
        let fd = socket.as_fd().as_raw_fd();
        self.pack();
        let (mut at, mut first, mut sent, mut bytes) = (0, 0, 0, 0);
        while at < self.out.len() {
            for _ in 0..send(fd, &mut self.out[at..], patience) {
                let run = self.runs[at];
                sent += run;
                bytes +=
                    self.queue[first..first + run].iter().map(|&(i, _)| self.length(i) as u64).sum::<u64>();
                (at, first) = (at + 1, first + run);
            }
            // The one at the head can't be sent, as a run or at all; those behind it may.
            if at < self.out.len() {
                let run = self.runs[at];
                for k in first..first + run {
                    let (i, hops) = self.queue[k];
                    if self.answer(i, &socket, self.datagram(i).payload, hops, patience).is_ok() {
                        (sent, bytes) = (sent + 1, bytes + self.length(i) as u64);
                    }
                }
                (at, first) = (at + 1, first + run);
            }
        }
        (sent, bytes)
    }

    /// Makes a header for each run of queued datagrams: alike in all but their bytes, they leave as
    /// one, which the kernel cuts into segments (udp(7), UDP_SEGMENT).
    fn pack(&mut self) {
        self.out.clear();
        self.runs.clear();
        let mut first = 0;
        while first < self.queue.len() {
            let run = self.run_length(first);
            let (i, hops) = self.queue[first];
            for &(k, _) in &self.queue[first..first + run] {
                self.iovecs[k].iov_len = self.length(k);
            }
            let mut header = self.headers[i];
            header.msg_hdr.msg_iovlen = run as _;
            header.msg_hdr.msg_control = (&raw mut self.controls[i]).cast();
            let segment = if run > 1 { u16::try_from(self.length(i)).ok() } else { None };
            self.envelopes[i].address_answer(&mut header.msg_hdr, hops, segment);
            self.out.push(header);
            self.runs.push(run);
            first += run;
        }
    }

    /// How many queued datagrams from `first` on can leave as one.
    fn run_length(&self, first: usize) -> usize {
        let (i, hops) = self.queue[first];
        let length = self.length(i);
        if length == 0 || !can_segment(self.envelopes[i].source) {
            return 1;
        }
        let most = (MAX_SEGMENTED / length).clamp(1, MAX_SEGMENTS);
        let alike = |n: usize, (k, other): (usize, Option<u8>)| {
            k == i + n && other == hops && self.length(k) == length && self.envelopes[k] == self.envelopes[i]
        };
        let next = self.queue[first..].iter().take(most).enumerate();
        next.take_while(|&(n, &queued)| alike(n, queued)).count()
    }
}

fn can_segment(source: Source) -> bool {
    cfg!(target_os = "linux") && matches!(source, Source::Ip(_))
}

fn send_flags(patience: Patience) -> i32 {
    libc::MSG_NOSIGNAL | if patience == Patience::Wait { 0 } else { libc::MSG_DONTWAIT }
}

/// Sends messages until one can't be sent; returns how many were. Where the call is forbidden, that is none, and
/// each is sent by itself.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
fn send(fd: i32, messages: &mut [Header], patience: Patience) -> usize {
    // SAFETY: the headers were made by `pack` and point at live buffers.
    let n =
        unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), messages.len() as _, send_flags(patience) as _) };
    usize::try_from(n).unwrap_or(0)
}

/// Elsewhere one by one.
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
fn send(fd: i32, messages: &mut [Header], patience: Patience) -> usize {
    let send_one = |message: &&mut Header| {
        // SAFETY: as above.
        unsafe { libc::sendmsg(fd, &raw const message.msg_hdr, send_flags(patience)) >= 0 }
    };
    messages.iter_mut().take_while(send_one).count()
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("capacity", &self.capacity())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
