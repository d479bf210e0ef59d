//! The application's certificate for mutual TLS, and an HTTP client that shows it
//! ([RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::monotonic;
use crate::error::{ConfigError, with_causes};

const TAKES: &str = "a certificate, with the chain that its authority gave, and its private key, both PEM";

/// Files are looked after so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A certificate with its private key, which the application shows to the provider and to APIs. Clones share it.
///
/// Access tokens that the provider binds to it (`tls_client_certificate_bound_access_tokens`) are sent to APIs over connections that
/// show it, too.
#[derive(Clone)]
pub struct ClientCertificate {
    source: Arc<Source>,
}

enum Source {
    /// Both in one PEM text.
    Pem(Vec<u8>),
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
}

/// By what files are known to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([(SystemTime, u64); 2]);

impl ClientCertificate {
    /// Two PEM files. They are read again when they change, as where certificates are renewed every day: new connections show
    /// the new one. Where they cannot be read then, the old one goes on, and the log says so.
    ///
    /// # Errors
    /// If they cannot be read now, or are no certificate and key.
    pub fn from_files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::checked(Source::Files { certificate: certificate.into(), key: key.into() })
    }

    /// Two PEM texts.
    ///
    /// # Errors
    /// If they are no certificate and key.
    pub fn from_pem(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::checked(Source::Pem([key.as_ref(), b"\n", certificate.as_ref()].concat()))
    }

    fn checked(source: Source) -> Result<Self, ConfigError> {
        let certificate = Self { source: Arc::new(source) };
        // Whether they fit each other shows when a client is built with them.
        build(reqwest::Client::builder, Some(&certificate))
            .map_err(|error| ConfigError::new("client_certificate", error, TAKES))?;
        Ok(certificate)
    }

    /// What a client is built with. An error says what is wrong, and nothing of the key.
    fn identity(&self) -> Result<reqwest::Identity, String> {
        let pem = match &*self.source {
            Source::Pem(pem) => pem.clone(),
            Source::Files { certificate, key } => {
                let read = |path: &PathBuf| {
                    std::fs::read(path).map_err(|error| format!("not to be read ({}: {error})", path.display()))
                };
                [read(key)?, b"\n".to_vec(), read(certificate)?].concat()
            }
        };
        reqwest::Identity::from_pem(&pem).map_err(|_| "no certificate with its key".to_owned())
    }

    fn stamp(&self) -> Option<Stamp> {
        let Source::Files { certificate, key } = &*self.source else { return None };
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Some(Stamp([stamp(certificate)?, stamp(key)?]))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            Source::Pem(_) => f.write_str("ClientCertificate(…)"),
            Source::Files { certificate, .. } => write!(f, "ClientCertificate({})", certificate.display()),
        }
    }
}

/// The crate's HTTP client, with the application's certificate if it has one.
#[derive(Clone, Debug)]
pub(crate) struct OwnClient(Arc<Inner>);

struct Inner {
    configure: Box<dyn Fn() -> reqwest::ClientBuilder + Send + Sync>,
    certificate: Option<ClientCertificate>,
    current: Mutex<Current>,
}

struct Current {
    client: reqwest::Client,
    stamp: Option<Stamp>,
    looked_at: Instant,
}

impl OwnClient {
    pub(crate) fn new(
        certificate: Option<ClientCertificate>,
        configure: impl Fn() -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamp = certificate.as_ref().and_then(ClientCertificate::stamp);
        let client = build(&configure, certificate.as_ref())?;
        let current = Mutex::new(Current { client, stamp, looked_at: monotonic() });
        Ok(Self(Arc::new(Inner { configure: Box::new(configure), certificate, current })))
    }

    /// The client to use now.
    pub(crate) fn get(&self) -> reqwest::Client {
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = &self.0.certificate
            && monotonic().saturating_duration_since(current.looked_at) >= LOOK_INTERVAL
        {
            current.looked_at = monotonic();
            let stamp = certificate.stamp();
            if stamp != current.stamp {
                match build(&self.0.configure, Some(certificate)) {
                    Ok(client) => {
                        tracing::info!(?certificate, "the client's certificate has changed and was read again");
                        (current.client, current.stamp) = (client, stamp);
                    }
                    Err(error) => tracing::error!(
                        ?certificate,
                        error,
                        "the client's certificate has changed and cannot be read: the old one goes on"
                    ),
                }
            }
        }
        current.client.clone()
    }
}

fn build(
    configure: impl Fn() -> reqwest::ClientBuilder,
    certificate: Option<&ClientCertificate>,
) -> Result<reqwest::Client, String> {
    let mut builder = configure();
    if let Some(certificate) = certificate {
        builder = builder.identity(certificate.identity()?);
    }
    builder.build().map_err(|error| with_causes(&error))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnClient").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}
