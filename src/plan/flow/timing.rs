//! How long things take, and from when on silence means something.
//!
//! A break of any kind is to be told within 60 s. These are the sums, in seconds, for a break at the worst moment, which is just after something
//! was heard, and at rate 0, where nothing is heard but the probe:
//!
//! | | the collector is silent | no spans, or refused ones | the back end takes none |
//! | --- | --- | --- | --- |
//! | silence that is no news | [`SILENT`] 30 | [`FRESH`] 45 | |
//! | within it: two probes ([`PROBE_EVERY`] 15), and the time of their spans ([`SPANS_TAKE`] 12) | | 42 | |
//! | the next probe, its export (5), the collector's next push (5) | | | 25 |
//! | spans are in the collector and are not sent ([`STUCK`]) | | | 20 |
//! | until the next look ([`LOOK_EVERY`]) | 2 | 2 | 2 |
//! | known after | 32 | 47 | 47 |
//!
//! The rest is for a busy machine: the turn that writes the status, and a probe (8) or a push (5) that is late, which makes it 55 at the most.
//!
//! What is not to be called a break: pushes come every 5 s, so that five in a row may be lost or late before a collector is silent. The spans of
//! two probes that follow each other come 22 s apart at the most (15, and 7 for the batches of component and collector), 37 s when one of them is
//! lost, and 45 s when the next one is late too.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

/// How often each API server is probed.
pub const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How often it is decided whether spans flow: much more often than anything below counts, as all of it waits for the next look.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A span that came within this time is news enough, from a collector that tells its counters.
pub const FRESH: SignedDuration = SignedDuration::from_secs(45);
/// A collector of which neither counters nor spans came for so long is silent.
pub const SILENT: SignedDuration = SignedDuration::from_secs(30);
/// How long spans may take to the trace store: kube-apiserver and etcd send batches every 5 s, collectors batch for 1 s, and each of these
/// exports has its own second or two.
pub const SPANS_TAKE: SignedDuration = SignedDuration::from_secs(12);
/// How many probes must have been without an echo.
pub const UNHEARD_PROBES: usize = 2;
/// How long spans may be in a collector before they are sent: it batches for a second, and a back end may hesitate.
pub const STUCK: SignedDuration = SignedDuration::from_secs(20);
/// Spans come and no counters do: for longer, as a collector that stopped is first known by its silence.
pub const UNCOUNTED: SignedDuration = SignedDuration::from_secs(60);

/// What an instance gets after its node, its collector or the store has begun anew: connections are made again, a probe has its time.
pub const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// A collector that begins anew again and again gets no further grace when nothing came for this long.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How long a collector of another configuration may take to start everywhere; images are pulled.
pub const ROLLING: SignedDuration = SignedDuration::from_mins(3);
