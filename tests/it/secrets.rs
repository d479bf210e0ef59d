//! P9: no token, code, secret or cookie value in what is shown.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tower_oidc_session::test_provider::Fault;
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions};

use crate::world::{G, Options, World};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn p9_no_secrets_in_logs_and_answers() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace,hyper=off,hyper_util=off,h2=off,reqwest=off,tower_sessions=off,tower_sessions_core=off")
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process: what other tests log meanwhile must hold no secret of this one either.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut options = Options::default();
    options.provider = options.provider.expired_sessions(ExpiredSessions::StaySilent);
    let world = World::signed_in_with(options).await;

    let mut secrets: Vec<String> = world.browser.cookies(&world.app.url).into_values().collect();
    let me = world.browser.get(&world.app.at("/me")).await.json();
    secrets.push(me["token"].as_str().unwrap().to_owned());
    secrets.push("secret".to_owned());
    let mut shown = format!("{:?} {:?}", world.app.rp, world.app.registry);
    for fault in [Fault::Truncate, Fault::Status { code: 500, retry_after: None }] {
        world.provider.set_fault_times(Endpoint::Token, fault, 2);
        world.clock.advance(G);
        assert_eq!(world.me().await, StatusCode::OK);
    }
    let logout = world.browser.post(&world.app.at("/auth/logout")).await;
    let hint = logout.location().query_pairs().find(|(name, _)| name == "id_token_hint").unwrap().1.into_owned();
    secrets.push(hint.clone());
    secrets.push(hint.rsplit_once('.').unwrap().1.to_owned());
    let token = world.provider.logout_token("shop", None, Some("unknown"));
    for token in [token.as_str(), &format!("{token}x")] {
        let answer = crate::backchannel_logout::post_token(&world, token).await;
        shown.push_str(answer.as_str());
        secrets.push(token.to_owned());
    }
    let callback = world.app.at("/auth/callback?code=the-secret-code&state=the-secret-state");
    shown.push_str(&world.browser.step(&callback).await.body);
    secrets.extend(["the-secret-code", "the-secret-state"].map(str::to_owned));

    shown.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(shown.contains("session started") && shown.contains("session ended"), "{shown}");
    for secret in secrets.iter().filter(|secret| secret.len() > 5) {
        // "secret" is a word of the texts too; as a value it would stand in quotes or after an equals sign.
        let found = match secret.as_str() {
            "secret" => shown.contains("\"secret\"") || shown.contains("=secret"),
            other => shown.contains(other),
        };
        assert!(!found, "{secret} in {shown}");
    }
}
