//! Carries out the machine's effects on a [`Host`], and says what came of them. It decides nothing.

use futures::future::join_all;
use tracing::Instrument;
use tracing::field::Empty;

use super::chain;
use super::drift::{Mend, TRACING_FILE_MODE};
use super::facts::KUBELET;
use super::journal;
use super::machine::{Effect, Event, Flight, Held, Moved, Seen, Side, Swap, View, transition};
use super::originals;
use super::recall;
use super::watchdog;
use crate::host::{self, File, Folder, Host, Permissions, Process, replace, stage, temporary_name};
use crate::runtime::telemetry;

/// Takes a flight from `event` to its end. `confirm` asks the API server whether the grant stands; `progress` hears of every new state.
///
/// # Guarantees
/// It ends, whatever fails: every wait has a bound. Stopping it anywhere, or killing the process, is safe: [`resume`] goes on.
///
/// # Errors
/// Only when the clocks cannot be read.
pub async fn drive<H: Host>(
    host: &H,
    mut flight: Flight,
    mut event: Event,
    confirm: impl AsyncFn(&Flight) -> Result<(), String>,
    progress: impl Fn(&Flight),
) -> Result<Flight, host::Error> {
    let change = tracing::info_span!("change", grant = flight.grant.id, revision = flight.grant.revision, trace_id = Empty);
    let work = async {
        telemetry::show_trace_id();
        let mut step = step_span(&flight);
        loop {
            let before = flight.step();
            let (next, effect) = transition(flight, event, &host.now()?);
            flight = next;
            if flight.step() != before {
                tracing::info!(grant = flight.grant.id, revision = flight.grant.revision, step = ?flight.step(), "step");
                step = step_span(&flight);
            }
            progress(&flight);
            let Some(effect) = effect else { return Ok(flight) };
            event = match &effect {
                // before the effect, so that nothing is done whose answer would be lost
                _ if flight.goes_forward() && recall::is_asked(host) => Event::Recalled,
                Effect::Confirm => confirm(&flight).instrument(step.clone()).await.map_or_else(Event::Withdrawn, |()| Event::Confirmed),
                _ => perform(host, &flight, &effect).instrument(step.clone()).await,
            };
            if let Event::Failed(message) | Event::SaveFailed(message) | Event::Withdrawn(message) = &event {
                tracing::warn!(?effect, "step did not succeed: {message}");
            }
        }
    };
    work.instrument(change).await
}

/// The part of a trace that the flight is in.
fn step_span(flight: &Flight) -> tracing::Span {
    tracing::info_span!("step", otel.name = ?flight.step())
}

/// Goes on with a flight from the journal. Needs no API server: what was not confirmed is not begun.
pub async fn resume<H: Host>(host: &H, flight: Flight) -> Result<Flight, host::Error> {
    let held = examine(host, &flight)?;
    drive(host, flight, Event::Resumed(held), async |_| Err("not asked again".to_owned()), |_| {}).await
}

async fn perform<H: Host>(host: &H, flight: &Flight, effect: &Effect) -> Event {
    let failed = |error: host::Error| Event::Failed(chain(&error));
    match effect {
        Effect::Save => journal::save(host, flight).map_or_else(|e| Event::SaveFailed(chain(&e)), |()| Event::Saved),
        Effect::Stage => stage_all(host, flight).map_or_else(failed, |()| Event::Staged),
        Effect::Compare => compare(host, flight).map_or_else(failed, Event::Compared),
        Effect::Guard => guard(host, flight).map_or_else(failed, |()| Event::Guarded),
        Effect::LookForWatchdog { at } => {
            host.sleep_until(*at).await;
            watchdogs(host, flight).map_or_else(failed, Event::WatchdogsSeen)
        }
        Effect::Confirm => Event::Withdrawn("nobody to ask".to_owned()),
        Effect::Examine => examine(host, flight).map_or_else(failed, Event::Examined),
        Effect::TakeAway(index, side) => {
            take_away(host, &flight.swaps[*index], *side).map_or_else(failed, |moved| Event::TakenAway(*index, moved))
        }
        Effect::Put(index, side) => put(host, &flight.swaps[*index], *side).map_or_else(failed, |moved| Event::Put(*index, moved)),
        Effect::Kill(process) => host.kill(*process).map_or_else(failed, |()| Event::Killed),
        Effect::Look { at, probe, pods } => look(host, flight, *at, *probe, *pods).await.map_or_else(failed, Event::Looked),
    }
}

/// Everything that the change and going back write, under names that nobody reads yet: whatever can fail for want of room or permission fails here.
fn stage_all(host: &impl Host, flight: &Flight) -> Result<(), host::Error> {
    for swap in &flight.swaps {
        provide(host, &swap.needs)?;
    }
    stage_way_back(host, flight)
}

/// What going back alone writes.
pub fn stage_way_back(host: &impl Host, flight: &Flight) -> Result<(), host::Error> {
    originals::keep(host, flight.swaps.iter().map(|swap| (swap.file.as_str(), swap.original.as_str())))?;
    for swap in &flight.swaps {
        stage(host, Folder::Manifests, &swap.file, &manifest(swap, Side::Before))?;
        stage(host, Folder::Manifests, &swap.file, &manifest(swap, Side::After))?;
    }
    Ok(())
}

/// Writes tracing files that are not there as they should be: a link, or anything else that cannot be read, is replaced.
fn provide(host: &impl Host, needs: &[(String, String)]) -> Result<(), host::Error> {
    for (name, contents) in needs {
        let file = File { bytes: contents.clone().into_bytes(), permissions: Permissions::own(TRACING_FILE_MODE) };
        if host.read(Folder::State, name).ok().flatten() != Some(file.clone()) {
            replace(host, Folder::State, name, &file)?;
        }
    }
    Ok(())
}

/// Puts right what no process reads before its next start. The manifest is replaced by one with the same bytes: the kubelet names a static
/// pod after the digest of what it decodes (applyDefaults in pkg/kubelet/config), and restarts nothing. One that has other bytes by now is
/// left alone.
pub fn mend(host: &impl Host, mend: &Mend) -> Result<(), host::Error> {
    provide(host, &mend.needs)?;
    let (name, text) = &mend.manifest;
    let file = File { bytes: text.clone().into_bytes(), permissions: mend.permissions };
    let there = host.read(Folder::Manifests, name)?;
    if there.is_some_and(|there| there.bytes == file.bytes && there.permissions != file.permissions) {
        replace(host, Folder::Manifests, name, &file)?;
    }
    Ok(())
}

/// Gives a file its contents, if it has others.
fn write(host: &impl Host, folder: Folder, name: &str, file: &File) -> Result<(), host::Error> {
    if host.read(folder, name)?.as_ref() == Some(file) { Ok(()) } else { replace(host, folder, name, file) }
}

/// Names of the needed files that do not hold what was written.
fn compare(host: &impl Host, flight: &Flight) -> Result<Vec<String>, host::Error> {
    let mut wrong = Vec::new();
    for (name, contents) in flight.swaps.iter().flat_map(|swap| &swap.needs) {
        let holds = match host.read(Folder::State, name) {
            Ok(file) => file.is_some_and(|file| file.bytes == contents.as_bytes()),
            Err(host::Error::NotPlain { .. }) => false,
            Err(error) => return Err(error),
        };
        if !holds {
            wrong.push(name.clone());
        }
    }
    Ok(wrong)
}

fn guard(host: &impl Host, flight: &Flight) -> Result<(), host::Error> {
    let Some(watchdog) = &flight.watchdog else { return Ok(()) };
    let file = File { bytes: watchdog.manifest.clone().into_bytes(), permissions: Permissions::own(0o600) };
    write(host, Folder::Manifests, watchdog::FILE, &file)
}

fn watchdogs(host: &impl Host, flight: &Flight) -> Result<Vec<Process>, host::Error> {
    let Some(watchdog) = &flight.watchdog else { return Ok(Vec::new()) };
    let processes = host.processes(watchdog::PROGRAM)?;
    Ok(processes.into_iter().filter(|process| process.argv.contains(&watchdog.argument)).collect())
}

/// Hides a manifest from the kubelet, under the name that its bytes were staged under.
fn take_away(host: &impl Host, swap: &Swap, side: Side) -> Result<Moved, host::Error> {
    let text = swap.version(side).text.as_bytes();
    match there(host, swap)?.as_deref() {
        None => {
            // an earlier life may have ended between the rename and its sync
            host.sync(Folder::Manifests)?;
            Ok(Moved::Done)
        }
        Some(bytes) if bytes == text => {
            host.rename(Folder::Manifests, &swap.file, &temporary_name(&swap.file, text))?;
            host.sync(Folder::Manifests)?;
            Ok(Moved::Done)
        }
        Some(_) => Ok(Moved::Foreign),
    }
}

fn put(host: &impl Host, swap: &Swap, side: Side) -> Result<Moved, host::Error> {
    match there(host, swap)?.as_deref() {
        None => {
            replace(host, Folder::Manifests, &swap.file, &manifest(swap, side))?;
            Ok(Moved::Done)
        }
        Some(bytes) if bytes == swap.version(side).text.as_bytes() => {
            host.sync(Folder::Manifests)?;
            Ok(Moved::Done)
        }
        Some(_) => Ok(Moved::Foreign),
    }
}

fn examine(host: &impl Host, flight: &Flight) -> Result<Vec<Held>, host::Error> {
    flight.swaps.iter().map(|swap| held(host, swap)).collect()
}

fn held(host: &impl Host, swap: &Swap) -> Result<Held, host::Error> {
    Ok(match there(host, swap)?.as_deref() {
        None => Held::Nothing,
        Some(bytes) if bytes == swap.before.text.as_bytes() => Held::BEFORE,
        Some(bytes) if bytes == swap.after.text.as_bytes() => Held::AFTER,
        Some(_) => Held::Other,
    })
}

/// The manifest's bytes; `None` when it is not there. A link or folder in its place is somebody else's, with bytes that are nobody's.
fn there(host: &impl Host, swap: &Swap) -> Result<Option<Vec<u8>>, host::Error> {
    match host.read(Folder::Manifests, &swap.file) {
        Ok(file) => Ok(file.map(|file| file.bytes)),
        Err(host::Error::NotPlain { .. }) => Ok(Some(Vec::new())),
        Err(error) => Err(error),
    }
}

fn manifest(swap: &Swap, side: Side) -> File {
    File { bytes: swap.version(side).text.as_bytes().to_vec(), permissions: swap.permissions }
}

async fn look<H: Host>(host: &H, flight: &Flight, at: u64, probe: bool, pods: Option<Side>) -> Result<View, host::Error> {
    let mut started = Ok(Vec::new());
    if flight.awaits_a_start() {
        let programs: Vec<_> = flight.swaps.iter().map(|swap| swap.component.as_str()).collect();
        started = host.starts_until(&programs, at).await;
    }
    // Whatever came of it: a look that fails is taken again at once, and would be without end or pause.
    host.sleep_until(at).await;
    let started = started?;
    let seen = join_all(flight.swaps.iter().map(|swap| look_at(host, swap, &started, probe, pods))).await;
    let components = seen.into_iter().collect::<Result<Vec<_>, _>>()?;
    let kubelet = if probe { host.processes(KUBELET)?.last().map(|process| process.id) } else { None };
    Ok(View { components, kubelet })
}

async fn look_at<H: Host>(host: &H, swap: &Swap, started: &[Process], probe: bool, pods: Option<Side>) -> Result<Seen, host::Error> {
    let program = swap.component.as_str();
    let processes = host.processes(program)?;
    let has_ended = |process: &&Process| processes.iter().all(|other| other.id != process.id);
    let brief = started.iter().filter(|process| process.is_of(program)).filter(has_ended).cloned().collect();
    let mut silent = None;
    if probe {
        let answers = join_all(swap.probes.iter().map(|p| host.probe(p))).await;
        silent = Some(swap.probes.iter().zip(answers).filter(|(_, green)| !green).map(|(p, _)| p.clone()).collect());
    }
    let pod = pods.and_then(|side| swap.version(side).pod.as_deref());
    let pod_lives = pod.and_then(|pod| host.pod_lives(pod).inspect_err(|e| tracing::warn!("{}", chain(e))).ok());
    Ok(Seen { processes, brief, silent, pod_lives })
}
