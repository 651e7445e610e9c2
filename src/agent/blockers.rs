//! What of the node stands in the way of a change, whatever the change is. Pure.
//!
//! The controller gives no grant while one of these stands, and the agent asks again right before it begins: minutes may lie between.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::facts::Facts;
use super::machine::Flight;
use crate::api::node_tracing::{Blocker, KubeletHealth, MemberHealth, TracingFound};
use crate::api::{ComponentName, Drift, Reason};
use crate::host::{Answer, Folder, Process, Room};
use crate::manifest::Probe;

/// The room that a change needs. It writes some 100 KB in ten files, and a copy of the agent's program, which has 11 MB; this is several times as
/// much, so that what others write between the check and the commit does not matter.
const ROOM: Room = Room { bytes: 64 * 1024 * 1024, inodes: Some(128) };
/// The part of kube-apiserver's memory that must be available. The old process gives back what the new one takes, so that a refusal at
/// less than the whole would keep small nodes, which run well, from ever being changed; below a quarter the node is about to kill
/// processes, and a start takes more than a run.
const MEMORY_PART: u64 = 4;
/// A kubelet opens its health port within seconds of its start.
const KUBELET_STARTS: u64 = 60_000;

/// What of the node, besides its components, a change depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the kubelet will act on a manifest.
    pub kubelet: KubeletHealth,
    /// What is left in the folders' file systems.
    pub room: Vec<(Folder, Room)>,
    /// Bytes of memory that new processes can have.
    pub memory_available: u64,
    /// Bytes of memory that kube-apiserver holds; 0 while it does not run.
    pub memory_of_apiserver: u64,
}

/// Where the kubelet says whether it is well (`healthzBindAddress`, `healthzPort`: the defaults, which kubeadm keeps).
pub fn kubelet_probe() -> Probe {
    Probe { scheme: "HTTP".into(), host: "127.0.0.1".into(), port: 10248, path: "/healthz".into() }
}

/// What the kubelet's answer, its processes and the time since boot say.
///
/// A port that is closed although the kubelet has run for a while is closed by its configuration, which cannot be read from here. That is
/// told and blocks nothing: the Node's heartbeat says the same to the controller within 40 s, and a kubelet that does not act on a
/// manifest leads back.
pub fn kubelet(answer: &Answer, processes: &[Process], since_boot: u64) -> KubeletHealth {
    match answer {
        Answer::Told(200, _) => KubeletHealth::Healthy,
        Answer::Refused if processes.iter().any(|p| since_boot.saturating_sub(p.id.started) > KUBELET_STARTS) => KubeletHealth::Unknown,
        Answer::Told(..) | Answer::Refused | Answer::Silent => KubeletHealth::NotAnswering,
    }
}

/// What stands in the way of any change. `drifts`: what somebody else changed of what is ours. `quiet_for`: how long a manifest that
/// somebody else changed is left to settle. `own`: when our own last change of this node ended. `standing`: what stood in the way before;
/// it takes twice the room or memory to end it, so that it does not come and go.
pub fn blockers(facts: &Facts, drifts: &[Drift], quiet_for: Duration, own: Option<Timestamp>, standing: &[Blocker]) -> Vec<Blocker> {
    let Some(s) = &facts.surroundings else { return Vec::new() };
    let times = |reason| if standing.iter().any(|b| b.reason == reason) { 2 } else { 1 };
    let found = [kubelet_blocks(s), room_blocks(s, times(Reason::NodeDiskFull)), memory_blocks(s, times(Reason::NodeMemoryLow))];
    let unrest = unrest(facts, quiet_for, own).map(|message| {
        // What drifted, somebody is at work on: until it has ended nobody can say what there is to heal.
        let reason = if drifts.is_empty() { Reason::UpgradeInProgress } else { Reason::WaitingForQuiet };
        blocker(reason, message)
    });
    found.into_iter().flatten().chain(unrest).chain(facts.receiver.blocker()).collect()
}

fn blocker(reason: Reason, message: String) -> Blocker {
    Blocker { reason, message }
}

fn kubelet_blocks(s: &Surroundings) -> Option<Blocker> {
    let message = || "the kubelet does not answer on 127.0.0.1:10248; see on the node: systemctl status kubelet".to_owned();
    (s.kubelet == KubeletHealth::NotAnswering).then(|| blocker(Reason::KubeletNotAnswering, message()))
}

fn room_blocks(s: &Surroundings, times: u64) -> Option<Blocker> {
    let short = |room: &Room| {
        let inodes = room.inodes.zip(ROOM.inodes).is_some_and(|(left, needed)| left < needed * times);
        room.bytes < ROOM.bytes * times || inodes
    };
    let (folder, _) = s.room.iter().find(|(_, room)| short(room))?;
    let message = format!(
        "less than {} MiB or {} inodes are left in the file system of the {folder} folder; make room on the node: df -h /etc/kubernetes, \
         df -i /etc/kubernetes",
        ROOM.bytes / 1024 / 1024,
        ROOM.inodes.unwrap_or_default()
    );
    Some(blocker(Reason::NodeDiskFull, message))
}

fn memory_blocks(s: &Surroundings, times: u64) -> Option<Blocker> {
    let short = s.memory_available < s.memory_of_apiserver / MEMORY_PART * times;
    let message = || {
        format!(
            "less memory is available than a {MEMORY_PART}th of what kube-apiserver holds, and a new one may not start; see on the node: free -m"
        )
    };
    short.then(|| blocker(Reason::NodeMemoryLow, message()))
}

/// Who is at work on the node's manifests.
fn unrest(facts: &Facts, quiet_for: Duration, own: Option<Timestamp>) -> Option<String> {
    if facts.kubeadm_runs {
        return Some("kubeadm runs on the node; a change waits until it has ended".to_owned());
    }
    // Both times are whole seconds of the same clock.
    let by_others = |changed: Timestamp| own.is_none_or(|own| changed.as_second() > own.as_second() + 1);
    let manifests = facts.components.iter().filter_map(|c| facts.manifest(&c.found.file));
    let manifest = manifests.into_iter().find(|m| by_others(m.changed) && facts.is_fresh(m, quiet_for))?;
    let (file, seconds) = (&manifest.file.name, quiet_for.as_secs());
    Some(format!("{file} was changed by somebody else less than {seconds} s ago; a change waits until it has settled"))
}

/// How long after its first contact with the API server a kubelet has surely listed its pods: it was seen to take a second.
const SYNCS_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Whether the kubelet has seen the API server's pods since it was started. One that has not drops the removal of a static pod, and lets
/// the next pod of that name wait for ever (kubernetes issue 112814). `heartbeat`: when it last told of its node, by the node's own clock.
pub fn has_synced(started: Option<Timestamp>, heartbeat: Option<Timestamp>, now: Timestamp) -> Result<(), Blocker> {
    let not_yet = |message: &str| Err(blocker(Reason::KubeletNotSynced, message.to_owned()));
    let Some(started) = started else { return not_yet("no kubelet is seen on the node; see there: systemctl status kubelet") };
    let Some(heartbeat) = heartbeat.filter(|heartbeat| *heartbeat >= started) else {
        return not_yet(
            "the kubelet has not told of its node since it was started, and would not let go of a static pod; see on the node: journalctl -u kubelet",
        );
    };
    if heartbeat.duration_since(started) < SYNCS_WITHIN && now.duration_since(heartbeat) < SYNCS_WITHIN {
        return not_yet("the kubelet was started a moment ago; a change begins when it has seen its pods");
    }
    Ok(())
}

/// What else stands in the way of this very flight, seen from here at the last moment: it restarts an etcd member whose cluster is not
/// well. A member that is unwell by our doing is to be mended, and cannot be asked.
pub fn of_member(flight: &Flight, facts: &Facts) -> Option<Blocker> {
    flight.swaps.iter().find(|swap| swap.component == ComponentName::Etcd)?;
    let etcd = facts.component(ComponentName::Etcd)?;
    if etcd.found.tracing == TracingFound::Ours && !etcd.healthy() {
        return None;
    }
    let member = etcd.member.as_ref()?;
    let (reason, what) = match member.health {
        MemberHealth::Alarm => (Reason::EtcdAlarm, "reports an alarm"),
        MemberHealth::NoLeader => (Reason::EtcdUnhealthy, "knows no leader"),
        MemberHealth::Unhealthy => (Reason::EtcdUnhealthy, "does not read from a quorum"),
        MemberHealth::Healthy | MemberHealth::Unknown if member.connected < member.members => {
            (Reason::QuorumAtRisk, "is not connected to every other member")
        }
        MemberHealth::Healthy | MemberHealth::Unknown => return None,
    };
    Some(blocker(reason, format!("the node's etcd member {what}; a change that restarts it waits")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::QUIET_FOR;
    use crate::agent::facts::tests::mk_facts;
    use crate::agent::receiver::Receiver;
    use crate::host::{Listener, ProcessId, Reach};

    #[test]
    fn an_endpoint_that_takes_no_connection_is_waited_for_and_a_port_that_is_taken_is_not() {
        let found = |receiver| reasons_after(&[], |facts| facts.receiver = receiver);
        assert_eq!(
            found(Receiver::Unreachable { endpoint: "10.96.0.20:4317".into(), cause: Reach::Refused }),
            [Reason::EndpointUnreachable]
        );
        assert_eq!(found(Receiver::PortTaken { port: 4317, listener: Listener { uid: 0, holder: None } }), []);
    }

    fn mk_process(started: u64) -> Process {
        Process { id: ProcessId { pid: 7, started }, argv: vec!["kubelet".into()], ..Process::default() }
    }

    /// The reasons that stand in the way once the node is spoilt, a minute after our own last change, and after those of `standing` did.
    fn reasons_after(standing: &[Reason], spoil: impl FnOnce(&mut Facts)) -> Vec<Reason> {
        let mut facts = mk_facts();
        let own = facts.now.wall - Duration::from_mins(1);
        spoil(&mut facts);
        let standing: Vec<_> = standing.iter().map(|reason| blocker(*reason, String::new())).collect();
        blockers(&facts, &[], QUIET_FOR, Some(own), &standing).into_iter().map(|b| b.reason).collect()
    }

    fn reasons(spoil: impl FnOnce(&mut Surroundings)) -> Vec<Reason> {
        reasons_after(&[], |facts| spoil(facts.surroundings.as_mut().unwrap()))
    }

    #[test]
    fn each_fault_of_the_node_has_its_reason_and_a_sound_node_has_none() {
        assert_eq!(reasons(|_| {}), []);
        assert_eq!(reasons(|s| s.kubelet = KubeletHealth::NotAnswering), [Reason::KubeletNotAnswering]);
        assert_eq!(reasons(|s| s.kubelet = KubeletHealth::Unknown), []);
        assert_eq!(reasons(|s| s.room[1].1.bytes = ROOM.bytes - 1), [Reason::NodeDiskFull]);
        assert_eq!(reasons(|s| s.room[0].1.inodes = Some(127)), [Reason::NodeDiskFull]);
        assert_eq!(reasons(|s| s.room[0].1.inodes = None), [], "a file system without a fixed number of inodes");
        assert_eq!(reasons(|s| s.memory_available = s.memory_of_apiserver / 5), [Reason::NodeMemoryLow]);
        assert_eq!(reasons(|s| s.memory_available = s.memory_of_apiserver / 3), [], "a small node runs well with that");
        assert_eq!(reasons_after(&[], |facts| facts.kubeadm_runs = true), [Reason::UpgradeInProgress]);
    }

    #[test]
    fn what_stood_in_the_way_needs_twice_the_room_to_go() {
        let after =
            |reason, spoil: &dyn Fn(&mut Surroundings)| reasons_after(&[reason], |facts| spoil(facts.surroundings.as_mut().unwrap()));
        let disk = |bytes| after(Reason::NodeDiskFull, &|s| s.room[0].1.bytes = bytes);
        assert_eq!((disk(ROOM.bytes * 2 - 1), disk(ROOM.bytes * 2)), (vec![Reason::NodeDiskFull], vec![]));
        let memory = |available| after(Reason::NodeMemoryLow, &|s| s.memory_available = available);
        assert_eq!((memory(199 << 20), memory(200 << 20)), (vec![Reason::NodeMemoryLow], vec![]));
    }

    #[test]
    fn a_manifest_that_somebody_else_changed_settles_for_two_minutes() {
        let changed =
            |seconds_ago: u64| reasons_after(&[], |facts| facts.manifests[0].changed = facts.now.wall - Duration::from_secs(seconds_ago));
        assert_eq!(changed(10), [Reason::UpgradeInProgress]);
        assert_eq!(changed(58), [Reason::UpgradeInProgress]);
        assert_eq!(changed(60), [], "by our own last change");
        let ever = |seconds_ago: u64| {
            let mut facts = mk_facts();
            facts.manifests[1].changed = facts.now.wall - Duration::from_secs(seconds_ago);
            blockers(&facts, &[], QUIET_FOR, None, &[]).len()
        };
        assert_eq!((ever(60), ever(119), ever(120)), (1, 1, 0));
    }

    #[test]
    fn a_kubelet_answers_or_not_or_its_port_is_closed() {
        let told = |status| Answer::Told(status, "ok".into());
        let hour = 3_600_000;
        for (answer, processes, expected) in [
            (told(200), vec![], KubeletHealth::Healthy),
            (told(500), vec![mk_process(0)], KubeletHealth::NotAnswering),
            (Answer::Silent, vec![mk_process(0)], KubeletHealth::NotAnswering),
            (Answer::Refused, vec![], KubeletHealth::NotAnswering),
            (Answer::Refused, vec![mk_process(hour - 1_000)], KubeletHealth::NotAnswering),
            (Answer::Refused, vec![mk_process(0)], KubeletHealth::Unknown),
        ] {
            assert_eq!(kubelet(&answer, &processes, hour), expected, "{answer:?}");
        }
    }

    #[test]
    fn nothing_begins_before_the_kubelet_has_been_in_contact_since_its_start() {
        let at = |second| Timestamp::constant(second, 0);
        let cases = [
            (None, Some(100), 200, false),
            (Some(100), None, 200, false),
            (Some(100), Some(99), 200, false),
            (Some(100), Some(101), 105, false),
            (Some(100), Some(101), 106, true),
            (Some(100), Some(105), 105, true),
        ];
        for (started, heartbeat, now, synced) in cases {
            assert_eq!(has_synced(started.map(at), heartbeat.map(at), at(now)).is_ok(), synced, "{started:?} {heartbeat:?} {now}");
        }
    }
}
