//! The application: three processes of `web_app`, each behind proxies of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::history::History;
use crate::process::{COOKIE_KEY, Process, web_app};
use crate::proxy::{Link, OnTheirWay, ToProvider};
use crate::servers::free_port;

pub(crate) struct Replica {
    pub(crate) number: usize,
    pub(crate) url: String,
    pub(crate) to_provider: ToProvider,
    /// There is none to a cluster, whose nodes name each other.
    pub(crate) to_store: Option<Link>,
    settings: Vec<(String, String)>,
    listen: String,
    folder: PathBuf,
    life: AtomicU32,
    process: Mutex<Option<Process>>,
}

/// What all replicas are told.
pub(crate) struct Settings {
    pub(crate) public_url: String,
    pub(crate) issuer: String,
    pub(crate) store_url: String,
    pub(crate) store_port: Option<u16>,
    pub(crate) others: Vec<(&'static str, String)>,
}

impl Replica {
    /// Its logs are in `folder`.
    pub(crate) async fn start(
        number: usize,
        settings: &Settings,
        folder: &Path,
        history: &History,
        on_their_way: &OnTheirWay,
    ) -> Self {
        let to_provider = ToProvider::start(number, history.clone(), on_their_way.clone()).await;
        let to_store = match settings.store_port {
            Some(port) => Some(Link::to(port).await),
            None => None,
        };
        let listen = format!("127.0.0.1:{}", free_port());
        let store_url = match (&to_store, settings.store_port) {
            (Some(link), Some(port)) => settings.store_url.replace(&format!(":{port}"), &format!(":{}", link.port)),
            _ => settings.store_url.clone(),
        };
        let clock = folder.join(format!("clock-{number}"));
        let mut all: Vec<(String, String)> = [
            ("LISTEN", listen.clone()),
            ("PUBLIC_URL", settings.public_url.clone()),
            ("OIDC_ISSUER", settings.issuer.clone()),
            ("OIDC_CLIENT_ID", "shop".to_owned()),
            ("OIDC_CLIENT_SECRET", "secret".to_owned()),
            ("COOKIE_KEY", COOKIE_KEY.to_owned()),
            ("STORE_URL", store_url),
            ("HTTP_PROXY", to_provider.url.clone()),
            ("RUST_LOG", "info,tower_oidc_session=debug".to_owned()),
            // The clock of the machine with what the file says added, looked at each second; pauses go on as they are.
            ("LD_PRELOAD", libfaketime()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(settings.others.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let replica = Self {
            number,
            url: format!("http://{listen}"),
            to_provider,
            to_store,
            settings: all,
            listen,
            folder: folder.to_owned(),
            life: AtomicU32::new(0),
            process: Mutex::new(None),
        };
        replica.set_clock(0);
        replica.begin();
        replica
    }

    /// Seconds that its clock is ahead.
    pub(crate) fn set_clock(&self, ahead: i64) {
        std::fs::write(self.folder.join(format!("clock-{}", self.number)), format!("{ahead:+}")).unwrap();
    }

    /// Starts the process.
    pub(crate) fn begin(&self) {
        let life = self.life.fetch_add(1, Ordering::SeqCst);
        self.to_provider.begin_life(life);
        let log = self.folder.join(format!("replica-{}-{life}.log", self.number));
        let log = File::create(log).unwrap();
        let process = Process::start(web_app().envs(self.settings.clone()).stderr(log));
        assert!(process.first_line.contains(&self.listen), "{}", process.first_line);
        *self.process.lock().unwrap() = Some(process);
    }

    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().take().expect("it runs").kill();
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.lock().unwrap().as_ref().expect("it runs").signal(signal);
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.process.lock().unwrap().as_mut().is_none_or(|process| process.exit_code().is_some())
    }
}

fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists()).expect("libfaketime is installed: run ci/tools");
    library.display().to_string()
}
