//! `make generate`, first part: runs the generator that was built beside the tests. `cargo run` would compile most dependencies once more,
//! without the features that tests add to them: four minutes on a fresh machine.

use std::process::Command;

#[test]
#[ignore = "writes files: make generate"]
fn what_is_generated_is_written() {
    let written = Command::new(env!("CARGO_BIN_EXE_crdgen")).status();
    assert!(written.is_ok_and(|status| status.success()), "crdgen failed; its words stand above");
}
