//! Programs that run beside the tests and are killed with them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::servers::free_port;

/// No program here takes longer to say that it runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What replicas of `web_app` share.
pub(crate) const COOKIE_KEY: &str =
    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMw==";

/// A program that is killed with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) first_line: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// Starts a program and waits for its first line.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_until(command, |_| true)
    }

    /// Starts a program and waits for a line that says that it runs.
    ///
    /// One that hangs is started once more, loudly: Node.js has been seen to, between its first line and its last.
    pub(crate) fn start_until(command: &mut Command, says_so: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let says_so: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(says_so);
        Self::started(command, says_so.clone())
            .or_else(|hung| {
                // Past what the test harness catches.
                let _ = std::io::stderr().write_all(format!("\nAT THE SECOND TRY: {hung}\n").as_bytes());
                Self::started(command, says_so)
            })
            .unwrap_or_else(|hung| panic!("{hung}"))
    }

    /// # Errors
    ///
    /// It hangs. One that ends instead is no matter for a second try.
    fn started(command: &mut Command, says_so: Arc<dyn Fn(&str) -> bool + Send + Sync>) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, receiver) = mpsc::channel();
        // Somebody has to read the rest too, or the program stops when the pipe is full.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if says_so(&line) {
                    let _ = sender.send(line);
                }
            }
        });
        let mut process = Self { child, first_line: String::new() };
        match receiver.recv_timeout(PATIENCE) {
            Ok(line) => {
                process.first_line = line;
                Ok(process)
            }
            Err(RecvTimeoutError::Timeout) => {
                let of = |what| std::fs::read_to_string(format!("/proc/{}/{what}", process.child.id()));
                let (stat, at) = (of("stat").unwrap_or_default(), of("wchan").unwrap_or_default());
                Err(format!("{command:?} does not say that it runs. It waits in {at:?}: {stat}"))
            }
            Err(RecvTimeoutError::Disconnected) => panic!("{command:?} ended: {:?}", process.child.wait()),
        }
    }

    /// Tells it to stop, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "there is a process to signal");
    }

    /// Whether it has ended, and how.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("it is our child").and_then(|status| status.code())
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reference application, which finds a free port by itself.
pub(crate) fn web_app() -> Command {
    example("web_app")
}

/// An example that listens where `LISTEN` says.
pub(crate) fn example(name: &str) -> Command {
    // Beside `deps`, where this test is: cargo builds the examples before the tests.
    let test = std::env::current_exe().expect("a test has a path");
    let target: PathBuf = test.ancestors().nth(2).expect("target/debug/deps/test").into();
    let mut command = Command::new(target.join("examples").join(name));
    command.env_clear().env("RUST_LOG", "off").env("LISTEN", "127.0.0.1:0");
    command
}

/// Where a [`web_app`] listens.
pub(crate) fn address(web_app: &Process) -> String {
    web_app.first_line.trim().strip_prefix("listening on ").expect("it says where").to_owned()
}

/// Ports that are free now, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| free_port())
}
