//! Where the frames of a WebSocket end (RFC 6455 §5.2), so that it can be closed between two of them.

use crate::session::end_reason::EndReason;

/// "The session is over": of the codes that applications may use (§7.4.2), the one that looks like 401.
const SESSION_OVER: u16 = 4401;

/// Follows what a server sends.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What is there of a header that is not complete.
    header: Vec<u8>,
    /// What is left of the payload.
    payload: u64,
}

impl Frames {
    /// Notes what was sent.
    pub(crate) fn note(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= u64::try_from(skipped).unwrap_or(self.payload);
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let Some(payload) = payload_of(&self.header) {
                self.payload = payload;
                self.header.clear();
            }
        }
    }

    /// Whether another frame may begin.
    pub(crate) fn is_between_two(&self) -> bool {
        self.payload == 0 && self.header.is_empty()
    }
}

/// What follows a header, if that is complete.
fn payload_of(header: &[u8]) -> Option<u64> {
    let lengths = header.get(1)?;
    let mask = if lengths & 0x80 == 0 { 0 } else { 4 };
    let extended = header.get(2..)?;
    let (length, size) = match lengths & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*extended.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*extended.first_chunk()?), 8),
        short => (u64::from(short), 0),
    };
    (extended.len() >= size + mask).then_some(length)
}

/// A frame that closes the connection and says why: the end of its session, or that nobody knows whether it stands.
pub(crate) fn close(reason: Option<EndReason>) -> Vec<u8> {
    let text = reason.map_or("not_confirmed", EndReason::as_str);
    let mut frame = vec![0x88, u8::try_from(2 + text.len()).unwrap_or(2)];
    frame.extend(SESSION_OVER.to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_lengths_are_followed_however_they_are_cut() {
        let mut stream = vec![0x81, 5];
        stream.extend(b"hello");
        stream.extend([0x89, 0]);
        stream.extend([0x82, 126, 0x01, 0x00]);
        stream.extend([0x88; 256]);
        stream.extend([0x02, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend(vec![0x81; 65_536]);
        stream.extend([0x80, 0x83, 1, 2, 3, 4, 7, 7, 7]);
        let boundaries = [7, 9, 269, 65_815, 65_824];
        assert_eq!(stream.len(), 65_824);
        for piece in [1, 2, 3, 7, 1000, 70_000] {
            let mut frames = Frames::default();
            let mut sent = 0;
            for bytes in stream.chunks(piece) {
                frames.note(bytes);
                sent += bytes.len();
                assert_eq!(frames.is_between_two(), boundaries.contains(&sent), "{piece} {sent}");
            }
        }
    }

    #[test]
    fn every_reason_fits_into_a_control_frame() {
        for reason in EndReason::ALL {
            let frame = close(Some(*reason));
            assert!(frame.len() <= 127, "{reason}");
            assert_eq!(usize::from(frame[1]), frame.len() - 2);
            assert_eq!(&frame[2..4], &[0x11, 0x31]);
        }
    }
}
