//! Lots for a world: one seed, the same draws everywhere and for ever.
//!
//! SplitMix64, written out so that no release of a dependency can change what a known bad seed means.

use uuid::Uuid;

/// A source of draws.
#[derive(Debug, Clone)]
pub(crate) struct Lot(u64);

impl Lot {
    /// The draws of this seed.
    pub(crate) fn new(seed: u64) -> Lot {
        Lot(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1))
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 128 bits.
    pub(crate) fn wide(&mut self) -> u128 {
        (u128::from(self.bits()) << 64) | u128::from(self.bits())
    }

    /// An id that no UUID of a test's own clashes with.
    pub(crate) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.wide().to_be_bytes()).into_uuid()
    }

    /// From 0 to `bound` - 1; 0 when there is no choice.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.bits() % bound as u64) as usize }
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.bits() % (most - least + 1)
    }

    /// True once in `odds` draws.
    pub(crate) fn one_in(&mut self, odds: u64) -> bool {
        self.bits().is_multiple_of(odds)
    }

    /// One of these, if there is one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut lot = Lot::new(seed);
            (0..5).map(|_| lot.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
