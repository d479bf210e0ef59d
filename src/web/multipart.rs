//! Forms of `multipart/form-data`: their fields are kept, their files are not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::session::id::random_text;

/// Larger forms are not kept.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

/// What a part costs besides its name and value.
const PART_OVERHEAD: usize = 64;
/// So much may come without a part, or a piece of one, becoming complete.
const MOST_HELD: usize = 512 * 1024;
/// And the parser may look at it so often.
const MOST_LOOKS: u32 = 4;

#[derive(Debug, thiserror::Error)]
#[error("the form cannot be read")]
struct Unreadable;

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    Value(#[serde(with = "base64_bytes")] Vec<u8>),
    /// One that was chosen, and is not kept.
    File,
    /// A place for one, where none was chosen.
    NoFile,
}

/// The fields of a body, if it is one, and they are no longer than what is kept.
pub(crate) async fn fields<B>(content_type: &str, body: B) -> Option<Vec<Field>>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let boundary = multer::parse_boundary(content_type).ok()?;
    // The parser takes all that there is before it looks, keeps what has no end yet, and looks through all of it whenever more
    // comes. So it gets no more than that before it has made something of it.
    let held = Arc::new(AtomicUsize::new(0));
    let counted = held.clone();
    let mut pieces = axum::body::Body::new(body).into_data_stream();
    let mut looks = 0;
    let stream = stream::poll_fn(move |cx| {
        if counted.load(Ordering::Relaxed) < MOST_HELD {
            looks = 0;
            let piece = ready!(pieces.poll_next_unpin(cx));
            return Poll::Ready(piece.map(|piece| {
                let piece = piece.map_err(|_| Unreadable)?;
                counted.fetch_add(piece.len(), Ordering::Relaxed);
                Ok(piece)
            }));
        }
        looks += 1;
        if looks > MOST_LOOKS {
            return Poll::Ready(Some(Err(Unreadable)));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut fields = Vec::new();
    let mut room = MOST_BYTES;
    while let Some(mut part) = parts.next_field().await.ok()? {
        held.store(0, Ordering::Relaxed);
        let name = part.name()?.to_owned();
        room = room.checked_sub(name.len() + PART_OVERHEAD)?;
        let content = match part.file_name() {
            Some("") => Content::NoFile,
            Some(_) => Content::File,
            None => {
                let mut value = Vec::new();
                while let Some(chunk) = part.chunk().await.ok()? {
                    held.store(0, Ordering::Relaxed);
                    room = room.checked_sub(chunk.len())?;
                    value.extend_from_slice(&chunk);
                }
                Content::Value(value)
            }
        };
        while part.chunk().await.ok()?.is_some() {
            held.store(0, Ordering::Relaxed);
        }
        fields.push(Field { name, content });
    }
    Some(fields)
}

/// The same of a body that is there as a whole.
pub(crate) async fn fields_of(content_type: &str, body: Bytes) -> Option<Vec<Field>> {
    let body = axum::body::Body::from_stream(stream::iter([Ok::<_, Infallible>(body)]));
    fields(content_type, body).await
}

/// Content type and body of a form with these fields, in which no file was chosen.
pub(crate) fn write(fields: &[Field]) -> (String, Vec<u8>) {
    let boundary = format!("----{}", random_text());
    let mut body = Vec::new();
    for Field { name, content } in fields {
        // As browsers write names.
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
        body.extend_from_slice(head.as_bytes());
        match content {
            Content::Value(value) => {
                body.extend_from_slice(b"\r\n\r\n");
                body.extend_from_slice(value);
            }
            Content::File | Content::NoFile => {
                body.extend_from_slice(b"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n");
            }
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// How bytes are written in JSON.
pub(crate) mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Engine, STANDARD};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn part(disposition: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    }

    #[tokio::test]
    async fn fields_are_read_and_written() {
        let body = [
            part("name=\"a%22b\"", "one\r\n--two"),
            part("name=\"file\"; filename=\"x.txt\"", "secret"),
            part("name=\"none\"; filename=\"\"", ""),
            part("name=\"é\"", ""),
            "--b--\r\n".to_owned(),
        ];
        let read = fields_of(TYPE, body.concat().into()).await.unwrap();
        let field = |name: &str, content| Field { name: name.to_owned(), content };
        let expected = [
            field("a%22b", Content::Value(b"one\r\n--two".to_vec())),
            field("file", Content::File),
            field("none", Content::NoFile),
            field("é", Content::Value(Vec::new())),
        ];
        assert_eq!(read, expected);
        let (content_type, body) = write(&read);
        let again = fields_of(&content_type, body.into()).await.unwrap();
        assert_eq!(again[0], expected[0]);
        assert_eq!(again[1].content, Content::NoFile);
    }

    #[tokio::test]
    async fn what_is_no_form_or_too_long_is_not_kept() {
        let long = part("name=\"a\"", &"x".repeat(MOST_BYTES)) + "--b--\r\n";
        let file = part("name=\"a\"; filename=\"f\"", &"x".repeat(2 * MOST_BYTES)) + "--b--\r\n";
        let pieces = (part("name=\"a\"; filename=\"f\"", &"x".repeat(4 * MOST_HELD)) + "--b--\r\n").into_bytes();
        let pieces: Vec<_> =
            pieces.chunks(60_000).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
        let body = axum::body::Body::from_stream(stream::iter(pieces));
        assert!(fields(TYPE, body).await.is_some(), "a large file that is there at once");
        for (content_type, body, is_read) in [
            (TYPE, long.as_str(), false),
            (TYPE, &file, true),
            (TYPE, "--b--\r\n", true),
            (TYPE, "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none", false),
            (TYPE, "a=b", false),
            ("multipart/form-data", &file, false),
            // Nothing but empty parts, and nothing that ends.
            (TYPE, &(part("name=\"\"", "").repeat(1025) + "--b--\r\n"), false),
            (TYPE, &"x".repeat(4 * MOST_HELD), false),
            (TYPE, &part("", "no name"), false),
        ] {
            let read = fields_of(content_type, body.to_owned().into()).await;
            assert_eq!(read.is_some(), is_read, "{content_type} {body:.60}");
        }
    }
}
