//! The main job on embedded defaults: a provider, applications of each kind and an API in one process.
//!
//! `demo` shows live pages; `demo --headless` plays the story by itself, checks every step and exits with 0 only if all
//! held. `--session-lifetime 60s` and `--signal-interval 15s` set the provider's inactivity timeout *T* and how often
//! activity is signalled, *G*. `--port 4000` is the provider's port, before those of the applications; 0 takes free ones.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod apps;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use apps::Demo;

struct Arguments {
    headless: bool,
    session_lifetime: Option<Duration>,
    signal_interval: Option<Duration>,
    port: u16,
}

const PORT: u16 = 4000;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let arguments = arguments()?;
    if arguments.headless {
        let lifetime = arguments.session_lifetime.unwrap_or(Duration::from_secs(3));
        let interval = arguments.signal_interval.unwrap_or(Duration::from_secs(1));
        return story::tell(lifetime, interval).await;
    }
    let lifetime = arguments.session_lifetime.unwrap_or(Duration::from_secs(60));
    let interval = arguments.signal_interval.unwrap_or(Duration::from_secs(15));
    let demo = Demo::start(lifetime, interval, arguments.port).await?;
    println!("The provider ends sessions after {lifetime:?} without activity; applications signal every {interval:?}.");
    println!("Open two or more and sign in as alice or bob (the password is the name):\n");
    for app in &demo.apps {
        println!("  {:<8} {}  {}", app.name, app.url, app.kind.describe());
    }
    println!("\nThen click in one of them only and watch the others. Ctrl-C ends the demonstration.");
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { headless: false, session_lifetime: None, signal_interval: None, port: PORT };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--headless" => found.headless = true,
            "--session-lifetime" => found.session_lifetime = Some(duration(&word, words.next())?),
            "--signal-interval" => found.signal_interval = Some(duration(&word, words.next())?),
            "--port" => {
                let value = words.next().unwrap_or_default();
                found.port = value.parse().map_err(|_| format!("--port is {value:?}: it takes a port, or 0"))?;
            }
            other => {
                return Err(format!(
                    "{other}: known are --headless, --session-lifetime 60s, --signal-interval 15s, --port {PORT}"
                ));
            }
        }
    }
    Ok(found)
}

fn duration(flag: &str, value: Option<String>) -> Result<Duration, String> {
    let value = value.unwrap_or_default();
    let seconds = value.strip_suffix('s').and_then(|number| number.parse().ok());
    seconds.map(Duration::from_secs).ok_or(format!("{flag} is {value:?}: it takes seconds, as 60s"))
}
