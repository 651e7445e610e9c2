//! The flight on the disk: what an agent that is started again goes on with.
//!
//! One file, replaced as a whole (`sealed`). One that is not what was written is [`Error::Damaged`]: it is reported, and nothing is
//! guessed from it.

use crate::host::{self, File, Folder, Host, Permissions, replace};

use super::machine::Flight;
use super::sealed;

/// Its name in the state folder.
pub const NAME: &str = "journal";

const FORMAT: &str = "clustertracing-journal 2";

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("read the journal")]
    Read(#[source] host::Error),
    /// The file is not what was written.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
}

/// Writes the flight.
pub fn save(host: &impl Host, flight: &Flight) -> Result<(), host::Error> {
    let file = File { bytes: encode(flight), permissions: Permissions::own(0o600) };
    replace(host, Folder::State, NAME, &file)
}

/// The flight that was written last, if there is one.
pub fn load(host: &impl Host) -> Result<Option<Flight>, Error> {
    let file = host.read(Folder::State, NAME).map_err(Error::Read)?;
    file.map(|file| decode(&file.bytes).map_err(Error::Damaged)).transpose()
}

/// Removes it, once everybody who must know how the flight ended does.
pub fn forget(host: &impl Host) -> Result<(), host::Error> {
    host.remove(Folder::State, NAME)?;
    host.sync(Folder::State)
}

fn encode(flight: &Flight) -> Vec<u8> {
    sealed::seal(FORMAT, flight)
}

fn decode(bytes: &[u8]) -> Result<Flight, String> {
    sealed::open(FORMAT, bytes)
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::mk_flight;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let flight = mk_flight();
        assert_eq!(decode(&encode(&flight)), Ok(flight));
    }

    #[test]
    fn every_shortened_or_changed_journal_is_damaged() {
        let good = encode(&mk_flight());
        for end in 0..good.len() - 1 {
            assert!(decode(&good[..end]).is_err(), "cut at {end}");
        }
        for position in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(decode(&bad).is_err(), "flipped at {position}");
        }
        assert!(decode(&encode(&mk_flight()).replace_version()).is_err());
    }

    trait ReplaceVersion {
        fn replace_version(&self) -> Vec<u8>;
    }
    impl ReplaceVersion for Vec<u8> {
        fn replace_version(&self) -> Vec<u8> {
            String::from_utf8_lossy(self).replacen("journal 2", "journal 3", 1).into_bytes()
        }
    }
}
