//! `examples/web_app.rs` as a process of its own, in real time: against a provider that nobody here wrote, and with
//! settings that cannot work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod oidc_provider;
mod settings;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A program that is killed with the test.
struct Process {
    child: Child,
    first_line: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a program and waits for its first line.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first_line = String::new();
        output.read_line(&mut first_line).expect("the program says that it runs");
        // Somebody has to read the rest, or the program stops when the pipe is full.
        std::thread::spawn(move || output.lines().for_each(drop));
        Self { child, first_line }
    }
}

fn web_app() -> Command {
    // Beside `deps`, where this test is: cargo builds the examples before the tests.
    let test = std::env::current_exe().expect("a test has a path");
    let target: PathBuf = test.ancestors().nth(2).expect("target/debug/deps/test").into();
    let mut command = Command::new(target.join("examples/web_app"));
    command.env_clear().env("RUST_LOG", "off").env("LISTEN", "127.0.0.1:0");
    command
}
