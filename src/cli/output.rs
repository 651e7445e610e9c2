//! Where a command prints what it has to say before its end.

use std::io;

/// Data for standard output, notes for standard error.
pub trait Output {
    /// Prints data at once.
    ///
    /// # Errors
    /// When nobody reads it any more, or it cannot be written.
    fn data(&mut self, text: &str) -> io::Result<()>;

    /// Prints a line for people at once.
    ///
    /// # Errors
    /// When it cannot be written.
    fn note(&mut self, line: &str) -> io::Result<()>;
}
