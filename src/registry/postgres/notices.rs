//! Ends on other replicas, heard by `LISTEN`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, poll_fn, select};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Socket};

use super::link::{Address, Call, Effect, Link, Stream, TIMEOUT, failed, too_late};
use crate::registry::listeners::Listeners;
use crate::registry::{EndListener, EndNotice, LeaseHolder, RegistryError};
use crate::session::id::SessionKey;

/// The pause before the connection for notices is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How often a silent connection for notices is asked whether it is still there.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// Who is told of ends, and where they are heard of.
pub(super) struct Notices {
    link: Arc<Link>,
    channel: String,
    address: watch::Sender<Address>,
    listeners: Listeners,
    probe: Call,
}

impl Notices {
    /// Listens for as long as what it returns is in use.
    pub(super) fn start(link: Arc<Link>, channel: &str) -> Arc<Self> {
        let probe = Call {
            text: "SELECT 'told', NULL::bytea, NULL::bigint, NULL::bytea FROM pg_notify($1, '')".to_owned(),
            types: vec![Type::TEXT],
            effect: Effect::Writes,
        };
        let (address, changes) = watch::channel(link.address().clone());
        let notices = Self { link, channel: channel.to_owned(), address, listeners: Listeners::default(), probe };
        let notices = Arc::new(notices);
        tokio::spawn(listen(Arc::downgrade(&notices), changes));
        notices
    }

    /// Listens there from now on.
    pub(super) fn listen_at(&self, address: Address) {
        self.address.send_replace(address);
    }

    pub(super) fn subscribe(&self, listener: EndListener) {
        self.listeners.add(listener);
    }
}

/// Hears of ends on other replicas for as long as the registry is in use.
async fn listen(notices: Weak<Notices>, mut addresses: watch::Receiver<Address>) {
    loop {
        let address = addresses.borrow_and_update().clone();
        let hearing = std::pin::pin!(hear(&notices, &address));
        let change = std::pin::pin!(addresses.changed());
        match select(hearing, change).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(error), _)) => {
                tracing::warn!(%error, "no notices of ends from other replicas at the moment");
            }
            Either::Right((Ok(()), _)) => continue,
            // The registry is gone.
            Either::Right((Err(_), _)) => return,
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn hear(notices: &Weak<Notices>, address: &Address) -> Result<(), RegistryError> {
    let opened = timeout(TIMEOUT, address.open()).await.map_err(|_| too_late())?;
    let (client, connection) = opened.map_err(failed)?;
    // A channel of our own, on which nobody else is heard.
    let Some(channel) = notices.upgrade().map(|notices| notices.channel.clone()) else { return Ok(()) };
    let own = format!("{channel}_{:08x}", LeaseHolder::random().number() >> 96);
    let heard_own = Notify::new();
    let commands = std::pin::pin!(command(notices, &client, &channel, &own, &heard_own));
    let messages = std::pin::pin!(pass_on(notices, connection, &own, &heard_own));
    match select(commands, messages).await {
        Either::Left((done, _)) | Either::Right((done, _)) => done,
    }
}

/// Passes on what is heard. Answers to commands come by the same stream, so it has to be polled for those as well.
async fn pass_on(
    notices: &Weak<Notices>,
    mut connection: Connection<Socket, Stream>,
    own: &str,
    heard_own: &Notify,
) -> Result<(), RegistryError> {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        let AsyncMessage::Notification(notification) = message.map_err(failed)? else { continue };
        if notification.channel() == own {
            heard_own.notify_one();
            continue;
        }
        let Some(notices) = notices.upgrade() else { return Ok(()) };
        notices.listeners.tell(read(&notification).unwrap_or(EndNotice::Missed));
    }
    Ok(())
}

fn read(notification: &Notification) -> Option<EndNotice> {
    let (key, reason) = notification.payload().split_once(' ')?;
    Some(EndNotice::Ended(SessionKey::from_hex(key)?, reason.parse().ok()?))
}

/// Begins to listen, finds out whether anything can be heard, and then whether the server is still there.
async fn command(
    notices: &Weak<Notices>,
    client: &Client,
    channel: &str,
    own: &str,
    heard_own: &Notify,
) -> Result<(), RegistryError> {
    let begin = format!("LISTEN {channel}; LISTEN {own}");
    timeout(TIMEOUT, client.batch_execute(&begin)).await.map_err(|_| too_late())?.map_err(failed)?;
    let moves = {
        let Some(notices) = notices.upgrade() else { return Ok(()) };
        let moves = notices.link.moves();
        // What was published while nobody listened is lost.
        notices.listeners.tell(EndNotice::Missed);
        probe(&notices, own, heard_own).await;
        moves
    };
    loop {
        sleep(CHECK_PAUSE).await;
        if notices.upgrade().is_none_or(|notices| notices.link.moves() != moves) {
            return Ok(());
        }
        timeout(TIMEOUT, client.check_connection()).await.map_err(|_| too_late())?.map_err(failed)?;
    }
}

/// A pooler takes a `LISTEN` and may pass nothing on. So something is said by another connection, and has to come.
async fn probe(notices: &Notices, own: &str, heard_own: &Notify) {
    let said = notices.link.call(&notices.probe, &[&own]).await;
    if said.is_ok() && timeout(TIMEOUT, heard_own.notified()).await.is_err() {
        tracing::warn!(
            "no notice of an end on another replica will arrive here: is there a pooler (PgBouncer) between? Give \
             PostgresRegistry::listen_at an address that leads to PostgreSQL itself; until then streams on other \
             replicas are cut only when they look by themselves"
        );
    }
}
