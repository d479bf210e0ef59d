//! Who ends sessions at the provider, and posts logout tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tower_oidc_session::test_provider::TestProvider;

use crate::history::{At, Event, Target};
use crate::users::World;

/// How long a replay waits at least: until logins that began later are not the token's any more.
const OLD: Duration = Duration::from_secs(35);

/// Each user is logged out about so often.
const EACH_ENDS_IN: Duration = Duration::from_secs(25);

struct Token {
    target: Target,
    issued: At,
    text: String,
}

/// Ends a session now and then until the run is over.
pub(crate) async fn end_sessions(world: Arc<World>, provider: TestProvider, users: u32, mut rng: SmallRng) {
    let mut sent: Vec<Arc<Token>> = Vec::new();
    let mut goes_on = world.goes_on.subscribe();
    loop {
        let pause = EACH_ENDS_IN.mul_f64(rng.random_range(0.0..2.0)) / users;
        tokio::select! {
            () = sleep(pause) => {}
            _ = goes_on.wait_for(|goes_on| !goes_on) => return,
        }
        let sessions = provider.sessions();
        if sessions.is_empty() {
            continue;
        }
        let session = &sessions[rng.random_range(0..sessions.len())];
        let (sub, sid) = (session.sub().to_owned(), session.sid().to_owned());
        let token = match rng.random_range(0..100) {
            // Nobody is told.
            0..15 => {
                provider.forget_session(&sid);
                continue;
            }
            15..35 => {
                let Some(old) = sent.iter().find(|token| token.issued + OLD < world.history.now()).cloned() else {
                    continue;
                };
                sent.retain(|token| !Arc::ptr_eq(token, &old));
                old
            }
            35..60 => end_all(&world, &provider, &sub),
            _ => end_one(&world, &provider, &sub, &sid),
        };
        sent.push(token.clone());
        let replica = rng.random_range(0..world.replicas.len());
        tokio::spawn(deliver(world.clone(), provider.clone(), token.clone(), replica));
        if rng.random_bool(0.2) {
            tokio::spawn(deliver(world.clone(), provider.clone(), token, replica + 1));
        }
    }
}

/// Logs those out whose login or refresh has been granted, and whose tokens are on their way.
pub(crate) async fn end_those_on_their_way(
    world: Arc<World>,
    provider: TestProvider,
    mut answered: mpsc::UnboundedReceiver<String>,
    mut rng: SmallRng,
) {
    let mut goes_on = world.goes_on.subscribe();
    loop {
        let sid = tokio::select! {
            sid = answered.recv() => sid.expect("the proxies go on"),
            _ = goes_on.wait_for(|goes_on| !goes_on) => return,
        };
        let Some(session) = provider.sessions().into_iter().find(|session| session.sid() == sid) else { continue };
        let token = if rng.random_bool(0.5) {
            end_all(&world, &provider, session.sub())
        } else {
            end_one(&world, &provider, session.sub(), &sid)
        };
        let replica = rng.random_range(0..world.replicas.len());
        tokio::spawn(deliver(world.clone(), provider.clone(), token, replica));
    }
}

fn end_one(world: &World, provider: &TestProvider, sub: &str, sid: &str) -> Arc<Token> {
    provider.forget_session(sid);
    let issued = world.history.now();
    let text = provider.logout_token("shop", Some(sub), Some(sid));
    Arc::new(Token { target: Target::Sid(sid.to_owned()), issued, text })
}

fn end_all(world: &World, provider: &TestProvider, sub: &str) -> Arc<Token> {
    for session in provider.sessions().iter().filter(|session| session.sub() == sub) {
        provider.forget_session(session.sid());
    }
    let issued = world.history.now();
    let text = provider.logout_token("shop", Some(sub), None);
    Arc::new(Token { target: Target::Sub(sub.to_owned()), issued, text })
}

/// As providers that care do: to a replica that takes connections, and again where the answer is not 200.
async fn deliver(world: Arc<World>, provider: TestProvider, token: Arc<Token>, first: usize) {
    for attempt in 0..4 {
        let replica = &world.replicas[(first + attempt) % world.replicas.len()];
        let sent = world.history.now();
        let answer = provider.post_logout_token(&format!("{}/auth/backchannel-logout", replica.url), &token.text).await;
        let is_done = answer == Ok(200);
        let acknowledged = is_done.then(|| world.history.now());
        let (target, issued) = (token.target.clone(), token.issued);
        world.history.push(Event::LogoutToken { target, issued, sent, acknowledged });
        if is_done {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Writes down when sessions of the provider are gone.
pub(crate) async fn watch_sessions(world: Arc<World>, provider: TestProvider) {
    let mut known: HashMap<String, std::time::SystemTime> = HashMap::new();
    loop {
        let now: HashMap<String, _> =
            provider.sessions().into_iter().map(|session| (session.sid().to_owned(), session.expires_at())).collect();
        for sid in known.keys().filter(|sid| !now.contains_key(*sid)) {
            world.history.push(Event::ProviderEnd { sid: sid.clone(), at: world.history.now() });
        }
        known = now;
        sleep(Duration::from_millis(50)).await;
    }
}
