//! A queue of bytes: appended at the end, taken from the front.
//!
//! A buffer owns no heap memory after all its bytes were removed. So the buffers of an idle
//! connection cost only a pointer each.

/// The number of unused bytes that a buffer may keep, because freeing them is not worth the work.
const MAX_SPARE_BYTES: usize = 1024;

/// The first capacity of a buffer that is written piece by piece. It is enough for the answers to
/// about a dozen commands.
const INITIAL_CAPACITY: usize = 1024;

/// A queue of bytes.
#[derive(Default)]
pub struct Buffer(Option<Box<Bytes>>);

/// The contents of a buffer, on the heap. A buffer without contents is only a null pointer of eight
/// bytes. This matters because each connection has two buffers.
#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Returns the bytes in the buffer, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.0
            .as_deref()
            .map_or(&[], |bytes| &bytes.bytes[bytes.start..])
    }

    /// The number of bytes in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the buffer has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Returns the number of bytes of memory that the buffer holds. This includes unused capacity.
    /// An empty buffer counts as 0.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self.0.as_deref() {
            None => 0,
            Some(Bytes { bytes, start }) if *start == bytes.len() => 0,
            Some(Bytes { bytes, .. }) => size_of::<Bytes>() + bytes.capacity(),
        }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0
                .get_or_insert_default()
                .bytes
                .extend_from_slice(bytes);
        }
    }

    /// Returns the buffer's vector. The caller can append output to this vector piece by piece. A
    /// new vector has capacity for common answers, so that the vector does not grow in many small
    /// steps. Even if the caller appends nothing, the buffer keeps this vector.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        let Bytes { bytes, .. } = &mut **self.0.get_or_insert_default();
        if bytes.capacity() == 0 {
            bytes.reserve(INITIAL_CAPACITY);
        }
        bytes
    }

    /// Removes `count` bytes from the front, or all bytes if there are fewer.
    ///
    /// ```
    /// use herd_mio::core::session::buffer::Buffer;
    ///
    /// let mut buffer = Buffer::default();
    /// buffer.extend(b"abc");
    /// buffer.consume(2);
    /// assert_eq!(buffer.as_slice(), b"c");
    /// ```
    pub fn consume(&mut self, count: usize) {
        let Some(Bytes { bytes, start }) = self.0.as_deref_mut() else {
            return;
        };
        *start += count.min(bytes.len() - *start);
        if *start == bytes.len() {
            self.0 = None;
        } else if *start > MAX_SPARE_BYTES && *start > bytes.len() / 2 {
            // Fewer bytes remain than were consumed since the last move. So on average, each byte
            // is moved at most once.
            bytes.drain(..*start);
            bytes.shrink_to(bytes.len() + MAX_SPARE_BYTES);
            *start = 0;
        }
    }

    /// Removes all bytes.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unused_room_is_held_and_an_empty_buffer_holds_nothing() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.held_bytes(), 0);
        buffer.tail().push(b'x');
        assert_eq!(buffer.held_bytes(), size_of::<Bytes>() + INITIAL_CAPACITY);
        buffer.consume(1);
        assert_eq!(buffer.held_bytes(), 0);
    }

    proptest! {
        #[test]
        fn the_buffer_behaves_like_a_queue(steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..3000), 0usize..4000), 0..40)) {
            let mut buffer = Buffer::default();
            let mut model = std::collections::VecDeque::new();
            for (bytes, count) in steps {
                buffer.extend(&bytes);
                model.extend(bytes);
                buffer.consume(count);
                model.drain(..count.min(model.len()));
                prop_assert_eq!(buffer.as_slice(), &*model.make_contiguous());
                prop_assert!(!buffer.is_empty() || buffer.0.is_none());
            }
        }
    }
}
