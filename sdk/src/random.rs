/// Numbers that follow from a seed (xorshift): for spreading waits and for tests. The same seed gives the same numbers; not for
/// secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins with this seed.
    pub fn new(seed: u64) -> Self {
        // Zero would yield zeros for ever.
        Self(seed.max(1))
    }

    /// A number from 0 to below the bound, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
