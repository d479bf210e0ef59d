//! Real stores on free ports with throwaway data, stopped with the test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// No server here takes longer to start.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// The store of a test.
pub(crate) struct Store {
    child: Child,
    command: Command,
    port: u16,
    folder: PathBuf,
    url: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn new_folder(port: u16) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tower-oidc-session-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Store {
    pub(crate) fn redis() -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(&folder);
        Self::start(command, port, folder, format!("redis://127.0.0.1:{port}/0"))
    }

    pub(crate) fn postgres() -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        let programs = postgres_programs();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&data));
        }
        run(as_server(programs.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data));
        let mut command = as_server(programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=300",
            "shared_preload_libraries=pg_stat_statements",
        ] {
            command.args(["-c", setting]);
        }
        Self::start(command, port, folder, format!("postgres://postgres@127.0.0.1:{port}/postgres"))
    }

    fn start(mut command: Command, port: u16, folder: PathBuf, url: String) -> Self {
        let child = spawn(&mut command);
        let store = Self { child, command, port, folder, url };
        store.until_it_listens();
        store
    }

    fn until_it_listens(&self) {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{:?} does not listen", self.command);
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// It answers nothing, and closes nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        // PostgreSQL works in children of the process that was started.
        let id = self.child.id().to_string();
        let children = Command::new("pgrep").args(["-P", &id]).output().unwrap().stdout;
        let ids = String::from_utf8(children).unwrap();
        run(Command::new("kill").arg(format!("-{signal}")).arg(&id).args(ids.split_whitespace()));
    }

    /// Ends it as a power failure would.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same address: a Redis is empty then, a PostgreSQL has what it had.
    pub(crate) fn restart(&mut self) {
        // What is left of a PostgreSQL that crashed takes a moment to leave.
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            self.child = spawn(&mut self.command);
            for _ in 0..300 {
                if self.child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        }
        panic!("{:?} does not start again", self.command);
    }
}

#[allow(clippy::zombie_processes, reason = "the store waits for it when it is dropped")]
fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run ci/tools"))
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A program that does not run as root: PostgreSQL refuses to.
fn as_server(program: impl AsRef<Path>) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program.as_ref());
        return command;
    }
    Command::new(program.as_ref())
}

fn postgres_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: run ci/tools");
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    PathBuf::from(format!("/usr/lib/postgresql/{}/bin", newest.expect("there is a version")))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run ci/tools"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
