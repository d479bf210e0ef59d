//! Real stores on free ports with throwaway data, stopped with the test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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

/// A port for a server that is started later. None of those that systems give to connections and to whoever asks for any:
/// another test would get it before the server does, or while it is restarted.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let next = || FIRST + start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
    std::iter::repeat_with(|| u16::try_from(next()).unwrap())
        .take(COUNT as usize)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("there are free ports")
}

/// An authority's certificate, and one of it for this machine with its key.
fn write_certificate(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    for (name, text) in
        [("authority.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn new_folder(port: u16) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tower-oidc-session-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Store {
    pub(crate) fn redis() -> Self {
        let port = free_port();
        Self::redis_with(port, &["--port", &port.to_string()], &format!("redis://127.0.0.1:{port}/0"))
    }

    fn redis_with(port: u16, arguments: &[&str], url: &str) -> Self {
        let folder = new_folder(port);
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(&folder)
            .args(arguments);
        Self::start(command, port, folder, url.to_owned())
    }

    /// A node of a cluster that has no slots yet, and the port it talks to other nodes at.
    pub(crate) fn redis_node() -> (Self, u16) {
        let (port, bus) = (free_port(), free_port());
        let arguments = ["--port", &port.to_string(), "--cluster-enabled", "yes", "--cluster-port", &bus.to_string()];
        (Self::redis_with(port, &arguments, &format!("redis://127.0.0.1:{port}/0")), bus)
    }

    /// A sentinel who watches `primary` by the name `main`, and may decide by itself.
    pub(crate) fn sentinel(primary: &Self) -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let file = folder.join("sentinel.conf");
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n",
            primary.port
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").arg("--dir").arg(&folder);
        Self::start(command, port, folder, format!("redis://127.0.0.1:{port}/0"))
    }

    /// With TLS only, and a user with a password only.
    pub(crate) fn redis_over_tls() -> Self {
        let port = free_port();
        let folder = new_folder(port);
        write_certificate(&folder);
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        let tls_port = port.to_string();
        let arguments = [
            ["--port", "0"],
            ["--tls-port", &tls_port],
            ["--tls-cert-file", certificate.to_str().unwrap()],
            ["--tls-key-file", key.to_str().unwrap()],
            ["--tls-auth-clients", "no"],
            ["--requirepass", "another"],
        ]
        .concat();
        let user = ["--user", "app", "on", ">secret", "~*", "&*", "+@all"];
        let arguments = [arguments.as_slice(), user.as_slice()].concat();
        Self::redis_with(port, &arguments, &format!("rediss://app:secret@localhost:{port}/0"))
    }

    pub(crate) fn postgres() -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Self::postgres_with(port, folder, &["-A", "trust"], &[], url)
    }

    /// With TLS, and a password.
    pub(crate) fn postgres_over_tls() -> Self {
        let port = free_port();
        let folder = new_folder(port);
        write_certificate(&folder);
        std::fs::write(folder.join("password"), "secret").unwrap();
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        run(Command::new("chmod").arg("600").arg(&key));
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&key));
        }
        let initdb = [format!("--pwfile={}", folder.join("password").display()), "-Ascram-sha-256".to_owned()];
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", key.display()),
        ];
        let url = format!("postgres://postgres:secret@localhost:{port}/postgres?sslmode=require");
        Self::postgres_with(port, folder, &initdb.each_ref().map(String::as_str), &settings, url)
    }

    fn postgres_with(port: u16, folder: PathBuf, initdb: &[&str], settings: &[String], url: String) -> Self {
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&data));
        }
        run(as_server(postgres_programs().join("initdb"))
            .args(["-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"])
            .args(initdb)
            .arg("-D")
            .arg(&data));
        Self::start(postgres_command(port, &data, settings), port, folder, url)
    }

    /// A standby of this PostgreSQL, which streams from it until it is promoted.
    pub(crate) fn standby(&self) -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        run(Command::new("chmod").arg("700").arg(&data));
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&data));
        }
        run(as_server(postgres_programs().join("pg_basebackup"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync"])
            .arg("-D")
            .arg(&data));
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Self::start(postgres_command(port, &data, &[]), port, folder, url)
    }

    /// Makes a standby a primary.
    pub(crate) fn promote(&self) {
        let data = self.folder.join("data");
        run(as_server(postgres_programs().join("pg_ctl")).args(["promote", "-s", "-w", "-D"]).arg(data));
    }

    /// A PgBouncer in transaction mode before this PostgreSQL, with so few connections that they are handed around.
    pub(crate) fn bouncer(&self, settings: &[&str]) -> Self {
        let port = free_port();
        let folder = new_folder(port);
        let file = folder.join("pgbouncer.ini");
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 3\nmax_client_conn = 300\nunix_socket_dir =\n{}\n",
            self.port,
            settings.join("\n")
        );
        std::fs::write(&file, config).unwrap();
        let mut command = as_server("/usr/sbin/pgbouncer");
        command.arg("-q").arg(&file);
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Self::start(command, port, folder, url)
    }

    fn start(mut command: Command, port: u16, folder: PathBuf, url: String) -> Self {
        let child = spawn(&mut command);
        let store = Self { child, command, port, folder, url };
        store.until_it_listens();
        store
    }

    fn until_it_listens(&self) {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if self.is_ready() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{:?} does not listen", self.command);
    }

    /// Whether it takes connections: a PostgreSQL listens a moment before it does.
    fn is_ready(&self) -> bool {
        let port = self.port.to_string();
        let takes_connections = || {
            let mut command = Command::new(postgres_programs().join("pg_isready"));
            command.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().is_ok_and(|status| status.success())
        };
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            && (!self.url.starts_with("postgres") || takes_connections())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of the authority that vouches for a server over TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
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
        run(Command::new("kill").arg(format!("-{signal}")).arg(&id));
        // One of them may have come to its end meanwhile.
        let mut children = Command::new("kill");
        let _ = children.arg(format!("-{signal}")).args(ids.split_whitespace()).stderr(Stdio::null()).status();
    }

    /// Takes its folder away.
    pub(crate) fn lose_disk(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
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
                if self.is_ready() {
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

fn postgres_command(port: u16, data: &Path, settings: &[String]) -> Command {
    let mut command = as_server(postgres_programs().join("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
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
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
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
