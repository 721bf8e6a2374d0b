//! The few things of librdkafka that its safe wrapper lacks, or does in a way that input can stop.
//!
//! - The wrapper panics on a header's name or a commit's metadata that is no UTF-8; anybody may write such.
//! - It never reports the outcome of an asynchronous commit: librdkafka answers to a queue or to a callback that the
//!   wrapper does not set. [`CommitAnswers`] is such a queue.
//! - It does not tell whether a failed message can have been stored.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;

use super::doorbell::Bell;

/// Whether a message whose delivery failed is certainly not on the bus.
pub(super) fn certainly_not_stored(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the pointer is that of a message which `message` keeps alive; the call only reads from it.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status == sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// A message's headers, with what is no UTF-8 in a name replaced.
pub(super) struct MessageHeaders<'a> {
    message: *const sys::rd_kafka_message_t,
    _alive: PhantomData<&'a ()>,
}

impl<'a> MessageHeaders<'a> {
    /// # Safety
    /// It is a message that librdkafka made and that lives for `'a`.
    pub(super) unsafe fn of(message: *const sys::rd_kafka_message_t) -> Self {
        Self { message, _alive: PhantomData }
    }

    pub(super) fn of_borrowed(message: &'a BorrowedMessage<'_>) -> Self {
        Self { message: message.ptr(), _alive: PhantomData }
    }

    fn native(&self) -> Option<NonNull<sys::rd_kafka_headers_t>> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive as long as `self`; librdkafka writes one pointer, to headers that the message owns.
        let code = unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) };
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        NonNull::new(headers)
    }

    /// Hands every name and value over until `each` answers false. Both live as long as the message.
    fn walk<'s>(&'s self, mut each: impl FnMut(&'s CStr, &'s [u8]) -> bool) {
        let Some(headers) = self.native() else { return };
        for index in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` belongs to a message that outlives `self`; an index past the end is answered with an error.
            let code =
                unsafe { sys::rd_kafka_header_get_all(headers.as_ptr(), index, &mut name, &mut value, &mut length) };
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return;
            }
            // SAFETY: librdkafka keeps names with a zero at their end, and `length` bytes at `value` unless that is null;
            // both are parts of the message's own memory, which nobody changes.
            let (name, value) = unsafe {
                let value: &[u8] =
                    if value.is_null() { &[] } else { slice::from_raw_parts(value.cast::<u8>(), length) };
                (CStr::from_ptr(name), value)
            };
            if !each(name, value) {
                return;
            }
        }
    }
}

impl crate::Headers for MessageHeaders<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let mut found = None;
        self.walk(|key, value| {
            if key.to_bytes() == name.as_bytes() {
                found = Some(value);
            }
            found.is_none()
        });
        found
    }

    fn each(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.walk(|name, value| {
            each(&name.to_string_lossy(), value);
            true
        });
    }
}

/// One partition of a list that librdkafka filled in.
pub(super) struct Element {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) metadata: String,
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// Copies a list out, with what is no UTF-8 replaced.
pub(super) fn elements(list: &TopicPartitionList) -> Vec<Element> {
    // SAFETY: the list owns what its pointer points to, and is not changed during the call.
    unsafe { native_elements(list.ptr()) }
}

/// # Safety
/// `list` is null or a list that stays alive and unchanged during the call.
unsafe fn native_elements(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Element> {
    // SAFETY: as the caller promises.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 || list.elems.is_null() {
        return Vec::new();
    }
    // SAFETY: librdkafka keeps `cnt` initialised elements at `elems`.
    let partitions = unsafe { slice::from_raw_parts(list.elems, count) };
    let copy = |element: &sys::rd_kafka_topic_partition_t| {
        // SAFETY: a topic's name ends with a zero; `metadata_size` bytes are at `metadata` unless that is null.
        let (topic, metadata) = unsafe {
            let metadata: &[u8] = if element.metadata.is_null() {
                &[]
            } else {
                slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size)
            };
            (CStr::from_ptr(element.topic).to_string_lossy(), metadata)
        };
        Element {
            topic: topic.into_owned(),
            partition: element.partition,
            offset: element.offset,
            metadata: String::from_utf8_lossy(metadata).into_owned(),
            error: error_code(element.err),
        }
    };
    partitions.iter().map(copy).collect()
}

/// The queue to which the answers to a consumer's commits come. Records and rebalances do not pass through it, so that a
/// commit can be waited for without taking either.
///
/// It must go before its consumer does; `'c` cannot say so where both lie in one structure, so that the structure's field
/// order does.
pub(super) struct CommitAnswers {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// An answer rings it.
    _bell: Bell,
    _not_shared: PhantomData<*mut ()>,
}

// SAFETY: librdkafka's queues may be used from any thread. That only one uses it at a time is what `&mut self` is for.
unsafe impl Send for CommitAnswers {}

/// The answer to one commit: the error of the whole, and what became of each partition.
pub(super) struct CommitAnswer {
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) partitions: Vec<Element>,
}

impl CommitAnswers {
    pub(super) fn new<C: ClientContext>(client: &Client<C>, bell: &Bell) -> Option<Self> {
        // SAFETY: the client is alive. The queue is ours until it is given back in `drop`.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(client.native_ptr()) })?;
        // SAFETY: the queue is alive; the byte is copied; the descriptor stays open until `drop` has taken it away.
        unsafe { sys::rd_kafka_queue_io_event_enable(queue.as_ptr(), bell.descriptor(), [1_u8].as_ptr().cast(), 1) };
        Some(Self { queue, _bell: bell.clone(), _not_shared: PhantomData })
    }

    /// Starts a commit. Exactly one answer will come, unless the consumer goes before.
    pub(super) fn commit<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        offsets: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are alive; the list is copied by the call; without a callback the answer goes to
        // the queue, of which librdkafka holds a reference of its own until then.
        let code = unsafe {
            sys::rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), self.queue.as_ptr(), None, ptr::null_mut())
        };
        error_code(code).map_or(Ok(()), Err)
    }

    /// Waits for an answer.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<CommitAnswer> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event, if one comes, is ours until it is given back below, and so is the list
        // inside it, which is copied before.
        unsafe {
            let event = NonNull::new(sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout))?.as_ptr();
            let answer = (sys::rd_kafka_event_type(event) == sys::RD_KAFKA_EVENT_OFFSET_COMMIT).then(|| CommitAnswer {
                error: error_code(sys::rd_kafka_event_error(event)),
                partitions: native_elements(sys::rd_kafka_event_topic_partition_list(event)),
            });
            sys::rd_kafka_event_destroy(event);
            answer
        }
    }
}

impl Drop for CommitAnswers {
    fn drop(&mut self) {
        // SAFETY: the queue came from `rd_kafka_queue_new` and is given back once; before that it forgets the bell.
        unsafe {
            sys::rd_kafka_queue_io_event_enable(self.queue.as_ptr(), -1, ptr::null(), 0);
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

pub(super) fn error_code(code: sys::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| RDKafkaErrorCode::from(code))
}
