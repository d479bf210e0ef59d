//! The part of a store that something lies in: stores may be spread over several servers by it.

/// One of [`COUNT`](Self::COUNT) parts of a store, by whose number the keys of sessions begin.
///
/// A session lies in the part of the `sid` that its login brought, or of its user if it brought none, so that a logout by
/// `sid` finds its sessions in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition(u8);

impl Partition {
    /// As many as one character of base64url has values. More servers than that share nothing.
    pub(crate) const COUNT: u8 = 64;

    /// Where clocks are read.
    #[cfg(feature = "redis")]
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) fn from_number(number: u8) -> Self {
        Self(number % Self::COUNT)
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    #[cfg(feature = "redis")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// That of what has this hash for its name.
    pub(crate) fn of_hash([first, ..]: &[u8; 32]) -> Self {
        Self::from_number(*first)
    }
}
