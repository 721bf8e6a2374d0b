//! Records in runs: librdkafka hands over an array at a time, for about half of what one call a record costs.
//!
//! Each partition has a queue of its own, which is not forwarded to the consumer's. So a partition that is not read
//! neither blocks another partition nor loses the records fetched for it (librdkafka's own pause drops them); and the
//! consumer's queue has only events of the group.
//!
//! Taking an array has a pitfall: librdkafka then counts the event of a partition's end, and every other error in a
//! record's place, as a record that was read. After a rebalance it would continue behind the next record, which would
//! be lost. So members do not ask for such events; where a partition ends is seen from the last answer to a fetch.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr::{self, NonNull};
use std::slice;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{TopicPartitionList, bindings as sys};

use super::raw::{MessageHeaders, elements, error_code};
use super::waker::Waker;

/// The most messages that one call to librdkafka takes.
const RUN: usize = 1_024;

/// A message, or an error in its place, in librdkafka's memory.
pub(super) struct RawMessage<'a>(&'a sys::rd_kafka_message_t);

impl RawMessage<'_> {
    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        error_code(self.0.err)
    }

    pub(super) fn offset(&self) -> i64 {
        self.0.offset
    }

    /// `None` for a tombstone.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka keeps `len` bytes at `payload` as long as the message lives, which is longer than `self`.
        unsafe { bytes(self.0.payload.cast(), self.0.len) }
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        // SAFETY: as for the payload.
        unsafe { bytes(self.0.key.cast(), self.0.key_len) }
    }

    /// Milliseconds since the Unix epoch; `None` when the record has no time.
    pub(super) fn time_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the call reads from it and writes one number.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.0, &mut kind) };
        (time >= 0).then_some(time)
    }

    pub(super) fn headers(&self) -> MessageHeaders<'_> {
        // SAFETY: the message lives as long as `self`, and is one that librdkafka made.
        unsafe { MessageHeaders::of(self.0) }
    }
}

/// # Safety
/// `length` bytes are at `start`, unless that is null, and stay there unchanged for `'a`.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start, length) })
}

/// Messages that were taken from a queue and are given back one by one, all of them whatever happens.
#[derive(Default)]
struct Run {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    at: usize,
}

// SAFETY: the pointers are this value's own messages, which any thread may read and give back.
unsafe impl Send for Run {}

impl Run {
    /// Hands over at most `max` messages until `each` breaks. Returns how many.
    fn each(
        &mut self,
        max: usize,
        each: &mut impl FnMut(RawMessage<'_>) -> ControlFlow<()>,
    ) -> (usize, ControlFlow<()>) {
        let first = self.at;
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue()
            && self.at - first < max
            && let Some(&message) = self.messages.get(self.at)
        {
            // SAFETY: librdkafka gave a message that is ours until it is destroyed below.
            if let Some(message) = unsafe { message.as_ref() } {
                flow = each(RawMessage(message));
            }
            self.destroy_next();
        }
        let handed = self.at - first;
        if self.at == self.messages.len() {
            self.messages.clear();
            self.at = 0;
        }
        (handed, flow)
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn destroy_next(&mut self) {
        let message = self.messages[self.at];
        self.at += 1;
        // SAFETY: it came from librdkafka, nothing borrows it any more, and the step above makes sure that it is given back
        // once.
        unsafe { sys::rd_kafka_message_destroy(message) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        while self.at < self.messages.len() {
            self.destroy_next();
        }
    }
}

/// The queue of one partition of a consumer. Must be dropped before its consumer.
pub(super) struct PartitionQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    topic: CString,
    partition: i32,
    /// Messages taken from it and not handed over yet, because the owner stopped.
    run: Run,
    /// The queue wakes it.
    _waker: Waker,
    _not_shared: PhantomData<*mut ()>,
}

// SAFETY: librdkafka's queues may be used from any thread. That only one uses it at a time is what `&mut self` is for.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Takes the partition's queue out of the consumer's. Call it before librdkafka begins to fetch the partition:
    /// records already in the consumer's queue would arrive out of order.
    pub(super) fn new<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        partition: i32,
        waker: &Waker,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive and the name ends with a zero. The queue is ours until it is given back in `drop`.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition) };
        let queue = NonNull::new(queue)?;
        // SAFETY: the queue is alive; the byte is copied; the descriptor stays open until `drop` has taken it away.
        unsafe {
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_io_event_enable(queue.as_ptr(), waker.descriptor(), [1_u8].as_ptr().cast(), 1);
        }
        Some(Self { queue, topic, partition, run: Run::default(), _waker: waker.clone(), _not_shared: PhantomData })
    }

    /// One past the newest record that the last answer to a fetch mentioned, including an answer to an earlier owner in
    /// this process.
    pub(super) fn newest_seen<C: ClientContext>(&self, client: &Client<C>) -> Option<u64> {
        let (mut first, mut end) = (0, 0);
        // SAFETY: the client is alive, the name ends with a zero, and the call writes two numbers from librdkafka's
        // state.
        let code = unsafe {
            let (client, topic) = (client.native_ptr(), self.topic.as_ptr());
            sys::rd_kafka_get_watermark_offsets(client, topic, self.partition, &mut first, &mut end)
        };
        if error_code(code).is_some() {
            return None;
        }
        u64::try_from(end).ok()
    }

    /// One past what was taken last, records that are never handed over (the markers of transactions) included.
    pub(super) fn position<C: ClientContext>(&self, client: &Client<C>) -> Option<u64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(self.topic.to_str().ok()?, self.partition);
        // SAFETY: client and list are alive; the call writes an offset into the list, from librdkafka's state.
        let code = unsafe { sys::rd_kafka_position(client.native_ptr(), list.ptr()) };
        if error_code(code).is_some() {
            return None;
        }
        u64::try_from(elements(&list).first()?.offset).ok()
    }

    /// Drops messages taken and not handed over: the partition starts from another offset.
    pub(super) fn forget_taken(&mut self) {
        self.run = Run::default();
    }

    /// Hands over queued messages, at most `max` until `each` breaks, without waiting. When it neither broke nor took
    /// `max`, the queue was empty, and the next message wakes the thread.
    pub(super) fn take(
        &mut self,
        max: usize,
        mut each: impl FnMut(RawMessage<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let run = &mut self.run;
        let mut taken = 0;
        while taken < max {
            if !run.is_empty() {
                let (handed, flow) = run.each(max - taken, &mut each);
                flow?;
                taken += handed;
                continue;
            }
            let wanted = RUN.min(max - taken);
            run.messages.reserve(wanted);
            // SAFETY: the queue is alive, and the array has capacity for `wanted` pointers, of which the first `got`
            // are written. With no time to wait the call returns at once. A partition's queue has no operations but
            // records, their errors and barriers, so that no rebalance is swallowed.
            let got = unsafe {
                let room = run.messages.as_mut_ptr();
                let got = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, room, wanted);
                let got = usize::try_from(got).unwrap_or(0).min(wanted);
                run.messages.set_len(got);
                got
            };
            if got == 0 {
                break;
            }
        }
        ControlFlow::Continue(())
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue came from librdkafka and is given back once; before that it forgets the waker, which is
        // dropped next.
        unsafe {
            sys::rd_kafka_queue_io_event_enable(self.queue.as_ptr(), -1, ptr::null(), 0);
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}
