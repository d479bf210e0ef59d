//! Repeatable random numbers, and the pauses of users.

/// The mean pause between two requests of an active user.
const MEAN_PAUSE: f64 = 20.0;

/// Repeatable random numbers (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Between 0 and 1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() * bound as f64) as usize
    }

    /// A pause: mostly short, at times a longer look at a page, never longer than `longest`.
    pub fn pause(&mut self, longest: f64) -> f64 {
        let mean = if self.next() < 0.95 { MEAN_PAUSE } else { longest / 2.0 };
        (-mean * (1.0 - self.next()).ln()).clamp(0.5, longest)
    }
}
