//! Peers that need more than their memory, or another version of tower-sessions.

use axum::Router;
use axum::routing::get;
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, UserId, login_required};
use tower::Layer;

use crate::contestants::{App, Contestant, PAGE, hello, with_cookies_of};

async fn read_value_014(session: tower_sessions_014::Session) -> &'static str {
    let value: Option<u64> = session.get("value").await.expect("the store answers");
    if value.is_some() { "hello" } else { "stranger" }
}

async fn write_value_014(session: tower_sessions_014::Session) {
    session.insert("value", 1_u64).await.expect("the store answers");
}

/// tower-sessions over the newest Redis store that its authors have published.
pub async fn tower_sessions_redis(url: &str) -> Contestant<impl App> {
    use tower_sessions_redis_store::RedisStore;
    use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

    let pool = Pool::new(Config::from_url(url).expect("a URL"), None, None, None, 6).expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("Redis is there");
    let sessions = tower_sessions_014::SessionManagerLayer::new(RedisStore::new(pool));
    let app = Router::new().route(PAGE, get(read_value_014)).route("/write", get(write_value_014));
    with_cookies_of(sessions.layer(app), "/write").await
}

/// tower-sessions over the newest PostgreSQL store that its authors have published.
pub async fn tower_sessions_postgres(url: &str) -> Contestant<impl App> {
    use tower_sessions_sqlx_store::{PostgresStore, sqlx::PgPool};

    let store = PostgresStore::new(PgPool::connect(url).await.expect("PostgreSQL is there"));
    store.migrate().await.expect("it takes the schema");
    let sessions = tower_sessions_014::SessionManagerLayer::new(store);
    let app = Router::new().route(PAGE, get(read_value_014)).route("/write", get(write_value_014));
    with_cookies_of(sessions.layer(app), "/write").await
}

#[derive(Clone, Debug)]
struct Alice;

impl AuthUser for Alice {
    type Id = u64;

    fn id(&self) -> u64 {
        1
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"hash"
    }
}

#[derive(Clone)]
struct Everybody;

impl AuthnBackend for Everybody {
    type User = Alice;
    type Credentials = ();
    type Error = std::convert::Infallible;

    async fn authenticate(&self, (): ()) -> Result<Option<Alice>, Self::Error> {
        Ok(Some(Alice))
    }

    async fn get_user(&self, _: &UserId<Self>) -> Result<Option<Alice>, Self::Error> {
        Ok(Some(Alice))
    }
}

async fn log_in(mut auth: AuthSession<Everybody>) {
    auth.login(&Alice).await.expect("the store answers");
}

/// axum-login over tower-sessions in memory, with `login_required!`.
pub async fn axum_login_memory() -> Contestant<impl App> {
    let sessions = tower_sessions_014::SessionManagerLayer::new(tower_sessions_014::MemoryStore::default());
    let auth = AuthManagerLayerBuilder::new(Everybody, sessions).build();
    let app = Router::new().route(PAGE, get(hello)).route_layer(login_required!(Everybody));
    with_cookies_of(auth.layer(app.route("/write", get(log_in))), "/write").await
}
