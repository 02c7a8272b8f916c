// SPDX-License-Identifier: GPL-2.0-or-later
//! The envelope of a datagram: who sent it, and that it is genuine, secret and new.
//!
//! XChaCha20-Poly1305. Its 24-byte nonce is a label, sender and epoch, from which a key for this
//! life of this sender is derived (HChaCha20), and a counter. The epoch is drawn with every start,
//! so that a counter that begins again never meets the same key.

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::codec::Reader;

/// Which node this is: unique in a cluster, and not 0.
pub type NodeId = u16;

/// A pre-shared key with the number that datagrams name it by.
#[derive(Clone)]
pub struct Key {
    pub id: u8,
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// What a datagram says in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: u8,
    pub(super) sender: NodeId,
    pub(super) epoch: u64,
    pub(super) counter: u64,
}

/// Why a datagram is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealError {
    /// Too short for an envelope.
    Short,
    Version,
    UnknownKey,
    Forged,
}

impl Header {
    /// Reads the header without believing a word of it.
    ///
    /// # Errors
    /// [`SealError::Short`] and [`SealError::Version`].
    pub(super) fn read(datagram: &[u8]) -> Result<Self, SealError> {
        if datagram.len() < OVERHEAD {
            return Err(SealError::Short);
        }
        let mut reader = Reader::new(datagram);
        let version = reader.u8().ok_or(SealError::Short)?;
        if version != VERSION {
            return Err(SealError::Version);
        }
        let mut read = || {
            Some(Self {
                key: reader.u8()?,
                sender: reader.u16()?,
                epoch: reader.u64()?,
                counter: reader.u64()?,
            })
        };
        read().ok_or(SealError::Short)
    }

    fn write(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = self.key;
        bytes[2..4].copy_from_slice(&self.sender.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    fn nonce(self) -> XNonce {
        let mut nonce = XNonce::default();
        nonce[..6].copy_from_slice(LABEL);
        nonce[6..8].copy_from_slice(&self.sender.to_be_bytes());
        nonce[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        nonce[16..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }
}

/// The keys in use. The first one seals, all of them open.
pub(super) struct Seal {
    keys: Vec<(u8, XChaCha20Poly1305)>,
    sender: NodeId,
    epoch: u64,
    counter: u64,
}

impl Seal {
    pub(super) fn new(keys: &[Key], sender: NodeId, epoch: u64) -> Self {
        let mut seal = Self {
            keys: Vec::new(),
            sender,
            epoch,
            counter: 0,
        };
        seal.set_keys(keys);
        seal
    }

    pub(super) fn set_keys(&mut self, keys: &[Key]) {
        let cipher = |key: &Key| (key.id, XChaCha20Poly1305::new(&key.secret.into()));
        self.keys = keys.iter().map(cipher).collect();
    }

    /// Puts a message into an envelope; `None` without a key.
    pub(super) fn seal(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (key, cipher) = self.keys.first()?;
        self.counter += 1;
        let header = Header {
            key: *key,
            sender: self.sender,
            epoch: self.epoch,
            counter: self.counter,
        };
        let clear = header.write();
        let mut datagram = Vec::with_capacity(OVERHEAD + message.len());
        datagram.extend_from_slice(&clear);
        datagram.extend_from_slice(message);
        let body = (&mut datagram[HEADER..]).into();
        let tag = cipher.encrypt_inout_detached(&header.nonce(), &clear, body);
        datagram.extend_from_slice(&tag.ok()?);
        Some(datagram)
    }

    /// Opens an envelope in place; the message is what is returned.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`] and [`SealError::Forged`].
    pub(super) fn open<'a>(
        &self,
        header: Header,
        datagram: &'a mut [u8],
    ) -> Result<&'a [u8], SealError> {
        let mut known = self.keys.iter().filter(|(id, _)| *id == header.key);
        let (_, cipher) = known.next().ok_or(SealError::UnknownKey)?;
        let (clear, rest) = datagram
            .split_at_mut_checked(HEADER)
            .ok_or(SealError::Short)?;
        let (body, tag) = rest
            .len()
            .checked_sub(TAG)
            .and_then(|at| rest.split_at_mut_checked(at))
            .ok_or(SealError::Short)?;
        let tag = Tag::try_from(&*tag).map_err(|_| SealError::Short)?;
        cipher
            .decrypt_inout_detached(&header.nonce(), clear, (&mut *body).into(), &tag)
            .map_err(|_| SealError::Forged)?;
        Ok(body)
    }
}

/// Which counters of a sender were seen: a window over the latest ones.
#[derive(Clone, Debug)]
pub(super) struct Window {
    latest: u64,
    seen: [u64; WORDS],
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            latest: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether a counter is new; from then on it is not.
    pub(super) fn accept(&mut self, counter: u64) -> bool {
        if counter == 0 || self.latest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        if counter > self.latest {
            // What lies between has not been seen yet, whatever was in these places before.
            let skipped = (counter - self.latest).min(WINDOW);
            for passed in 0..skipped {
                let (word, bit) = place(counter - passed);
                self.seen[word] &= !bit;
            }
            self.latest = counter;
        }
        let (word, bit) = place(counter);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }
}

const fn place(counter: u64) -> (usize, u64) {
    let position = counter % WINDOW;
    ((position / 64) as usize, 1 << (position % 64))
}

pub(super) const VERSION: u8 = 1;

const HEADER: usize = 20;
const TAG: usize = 16;

/// Bytes that an envelope adds to a message.
pub(super) const OVERHEAD: usize = HEADER + TAG;

const LABEL: &[u8; 6] = b"tylo-1";

/// How far a datagram may be behind the latest one, in datagrams.
const WINDOW: u64 = 4096;
const WORDS: usize = (WINDOW / 64) as usize;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u8) -> Key {
        Key {
            id,
            secret: [id; 32],
        }
    }

    fn open(seal: &Seal, datagram: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut bytes = datagram.to_vec();
        let header = Header::read(&bytes)?;
        seal.open(header, &mut bytes).map(<[u8]>::to_vec)
    }

    #[test]
    fn only_the_key_opens_and_every_bit_counts() {
        let mut ours = Seal::new(&[key(1)], 7, 99);
        let sealed = ours.seal(b"a session").unwrap();
        assert_eq!(sealed.len(), b"a session".len() + OVERHEAD);
        assert!(!sealed.windows(9).any(|w| w == b"a session"));
        assert_eq!(open(&ours, &sealed).unwrap(), b"a session");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&ours, &bad).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open(&ours, &sealed[..len]).is_err());
        }
        let other = Key {
            id: 1,
            secret: [2; 32],
        };
        let theirs = Seal::new(&[other], 8, 99);
        assert_eq!(open(&theirs, &sealed), Err(SealError::Forged));
        let theirs = Seal::new(&[key(2)], 8, 99);
        assert_eq!(open(&theirs, &sealed), Err(SealError::UnknownKey));
    }

    #[test]
    fn a_key_is_exchanged_without_a_gap() {
        let (mut a, mut b) = (Seal::new(&[key(1)], 1, 5), Seal::new(&[key(1)], 2, 6));
        for (keys_a, keys_b) in [
            (vec![key(1)], vec![key(1), key(2)]),
            (vec![key(2), key(1)], vec![key(1), key(2)]),
            (vec![key(2), key(1)], vec![key(2), key(1)]),
            (vec![key(2)], vec![key(2)]),
        ] {
            a.set_keys(&keys_a);
            b.set_keys(&keys_b);
            assert!(open(&b, &a.seal(b"to b").unwrap()).is_ok());
            if keys_a.len() > 1 || keys_b.len() == 1 {
                assert!(open(&a, &b.seal(b"to a").unwrap()).is_ok());
            }
        }
        assert!(Seal::new(&[], 1, 1).seal(b"in clear").is_none());
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let mut seen = std::collections::HashSet::new();
        for epoch in [1, 2] {
            let mut seal = Seal::new(&[key(1)], 3, epoch);
            for _ in 0..100 {
                let header = Header::read(&seal.seal(b"x").unwrap()).unwrap();
                assert!(seen.insert(header.nonce()));
            }
        }
    }

    #[test]
    fn a_counter_is_accepted_once() {
        let mut window = Window::new();
        assert!(!window.accept(0));
        assert!(window.accept(3) && window.accept(1) && window.accept(2));
        assert!(!window.accept(3) && !window.accept(1));
        assert!(window.accept(WINDOW + 2));
        assert!(!window.accept(2), "fell out of the window");
        assert!(!window.accept(3), "seen");
        assert!(window.accept(4), "not seen yet");
        assert!(window.accept(u64::MAX) && !window.accept(u64::MAX));
        assert!(window.accept(u64::MAX - 1), "skipped over");
        assert!(!window.accept(5));
    }
}
