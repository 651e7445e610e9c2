//! Carries out the machine's effects on a [`Host`], and says what came of them. It decides nothing.

use futures::future::join_all;

use super::chain;
use super::journal;
use super::machine::{Effect, Event, Flight, Held, Put, Seen, Swap, transition};
use crate::host::{self, File, Folder, Host, Permissions, replace, stage};

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
    loop {
        let before = flight.step();
        let (next, effect) = transition(flight, event, &host.now()?);
        flight = next;
        if flight.step() != before {
            tracing::info!(grant = flight.grant.id, revision = flight.grant.revision, step = ?flight.step(), "step");
        }
        progress(&flight);
        let Some(effect) = effect else { return Ok(flight) };
        event = match &effect {
            Effect::Confirm => confirm(&flight).await.map_or_else(Event::Withdrawn, |()| Event::Confirmed),
            _ => perform(host, &flight, &effect).await,
        };
        if let Event::Failed(message) | Event::SaveFailed(message) | Event::Withdrawn(message) = &event {
            tracing::warn!(?effect, "step did not succeed: {message}");
        }
    }
}

/// Goes on with a flight from the journal. Needs no API server: what was not confirmed is not begun.
pub async fn resume<H: Host>(host: &H, flight: Flight) -> Result<Flight, host::Error> {
    let held = flight.swaps.iter().map(|swap| held(host, swap)).collect::<Result<_, _>>()?;
    drive(host, flight, Event::Resumed(held), async |_| Err("not asked again".to_owned()), |_| {}).await
}

async fn perform<H: Host>(host: &H, flight: &Flight, effect: &Effect) -> Event {
    let failed = |error: host::Error| Event::Failed(chain(&error));
    match effect {
        Effect::Save => journal::save(host, flight).map_or_else(|e| Event::SaveFailed(chain(&e)), |()| Event::Saved),
        Effect::Stage => stage_all(host, flight).map_or_else(failed, |()| Event::Staged),
        Effect::Confirm => Event::Withdrawn("nobody to ask".to_owned()),
        Effect::Put(index) => {
            let swap = &flight.swaps[*index];
            put(host, swap, &swap.before, &swap.after).map_or_else(failed, |put| Event::Put(*index, put))
        }
        Effect::PutBack(index) => {
            let swap = &flight.swaps[*index];
            put(host, swap, &swap.after, &swap.before).map_or_else(failed, |put| Event::Put(*index, put))
        }
        Effect::Look { at, probe } => {
            host.sleep_until(*at).await;
            let seen = join_all(flight.swaps.iter().map(|swap| look(host, swap, *probe))).await;
            seen.into_iter().collect::<Result<_, _>>().map_or_else(failed, Event::Looked)
        }
    }
}

/// Everything that the change and going back write, under names that nobody reads yet: whatever can fail for want of room or permission fails here.
fn stage_all(host: &impl Host, flight: &Flight) -> Result<(), host::Error> {
    for swap in &flight.swaps {
        for (name, contents) in &swap.needs {
            let file = File { bytes: contents.clone().into_bytes(), permissions: Permissions::own(0o644) };
            if host.read(Folder::State, name)? != Some(file.clone()) {
                replace(host, Folder::State, name, &file)?;
            }
        }
        if swap.original {
            let file = File { bytes: swap.before.clone().into_bytes(), permissions: Permissions::own(0o600) };
            if host.read(Folder::Backups, &swap.file)? != Some(file.clone()) {
                replace(host, Folder::Backups, &swap.file, &file)?;
            }
        }
        stage(host, Folder::Manifests, &swap.file, &manifest(swap, &swap.before))?;
        stage(host, Folder::Manifests, &swap.file, &manifest(swap, &swap.after))?;
    }
    Ok(())
}

fn put(host: &impl Host, swap: &Swap, from: &str, to: &str) -> Result<Put, host::Error> {
    match there(host, swap)?.as_deref() {
        Some(bytes) if bytes == to.as_bytes() => {
            // an earlier life may have ended between the rename and its sync
            host.sync(Folder::Manifests)?;
            Ok(Put::AlreadyThere)
        }
        Some(bytes) if bytes == from.as_bytes() => {
            replace(host, Folder::Manifests, &swap.file, &manifest(swap, to))?;
            Ok(Put::Written)
        }
        _ => Ok(Put::Foreign),
    }
}

fn held(host: &impl Host, swap: &Swap) -> Result<Held, host::Error> {
    Ok(match there(host, swap)?.as_deref() {
        Some(bytes) if bytes == swap.before.as_bytes() => Held::Before,
        Some(bytes) if bytes == swap.after.as_bytes() => Held::After,
        _ => Held::Other,
    })
}

/// The manifest's bytes; `None` when it is gone, or a link or folder has taken its place: that is not ours either.
fn there(host: &impl Host, swap: &Swap) -> Result<Option<Vec<u8>>, host::Error> {
    match host.read(Folder::Manifests, &swap.file) {
        Ok(file) => Ok(file.map(|file| file.bytes)),
        Err(host::Error::NotPlain { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn manifest(swap: &Swap, text: &str) -> File {
    File { bytes: text.as_bytes().to_vec(), permissions: swap.permissions }
}

async fn look<H: Host>(host: &H, swap: &Swap, probe: bool) -> Result<Seen, host::Error> {
    let processes = host.processes(swap.component.as_str())?;
    let mut silent = None;
    if probe {
        let answers = join_all(swap.probes.iter().map(|p| host.probe(p))).await;
        silent = Some(swap.probes.iter().zip(answers).filter(|(_, green)| !green).map(|(p, _)| p.clone()).collect());
    }
    Ok(Seen { processes, silent })
}
