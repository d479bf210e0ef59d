//! The records that were read last. A store says at every request what a session is; where it says the same as before,
//! nothing has to be read anew.

use std::sync::{Arc, Mutex, PoisonError};

use super::RegistryError;
use crate::session::id::SessionKey;
use crate::session::record::SessionRecord;

/// So many are kept. Of two in one place the later stays.
const PLACES: usize = 1024;

pub(crate) struct Recent {
    places: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    key: SessionKey,
    stored: Vec<u8>,
    record: Arc<SessionRecord>,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::new(None)).collect() }
    }

    /// What `read` makes of what the store has of a session, or has made of the same before.
    ///
    /// # Errors
    /// As `read`.
    pub(crate) fn read(
        &self,
        key: &SessionKey,
        stored: Vec<u8>,
        read: impl FnOnce(&[u8]) -> Result<SessionRecord, RegistryError>,
    ) -> Result<Arc<SessionRecord>, RegistryError> {
        let Some(place) = self.place(key) else { return read(&stored).map(Arc::new) };
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.key == *key && kept.stored == stored) {
            return Ok(kept.record.clone());
        }
        // What was there is of no use any more, whatever comes of this.
        *kept = None;
        let record = Arc::new(read(&stored)?);
        *kept = Some(Kept { key: *key, stored, record: record.clone() });
        Ok(record)
    }

    /// Forgets what is kept of a session that is over.
    pub(crate) fn forget(&self, key: &SessionKey) {
        if let Some(place) = self.place(key) {
            place.lock().unwrap_or_else(PoisonError::into_inner).take_if(|kept| kept.key == *key);
        }
    }

    fn place(&self, key: &SessionKey) -> Option<&Mutex<Option<Kept>>> {
        let [.., high, low] = key.as_bytes();
        self.places.get(usize::from(u16::from_be_bytes([*high, *low])) % PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::codec::unreadable;
    use crate::session::record::samples;

    #[test]
    fn what_the_store_says_again_is_not_read_again_and_nothing_else_is_believed() {
        let recent = Recent::new();
        let record = samples::record();
        let key = *record.key();
        let read = |stored: &[u8], made: Option<&SessionRecord>| {
            let mut was_read = false;
            let found = recent.read(&key, stored.to_vec(), |_| {
                was_read = true;
                made.cloned().ok_or_else(|| unreadable("it is a test"))
            });
            (found.ok().map(|record| record.version()), was_read)
        };
        let mut later = record.clone();
        later.version = later.version.next();
        assert_eq!(read(b"one", Some(&record)), (Some(record.version()), true));
        assert_eq!(read(b"one", None), (Some(record.version()), false));
        assert_eq!(read(b"two", Some(&later)), (Some(later.version()), true));
        assert_eq!(read(b"one", Some(&record)), (Some(record.version()), true), "nobody said that before this");
        assert_eq!(read(b"three", None), (None, true));
        assert_eq!(read(b"one", None), (None, true), "what cannot be read leaves nothing of before");
        assert_eq!(read(b"one", Some(&record)), (Some(record.version()), true));
        recent.forget(&key);
        assert_eq!(read(b"one", None), (None, true));
    }
}
