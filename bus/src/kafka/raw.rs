//! The few functions of librdkafka that its safe wrapper lacks, or implements so that some input makes it panic.
//!
//! - The wrapper panics on a header's name or a commit's metadata that is not UTF-8; any producer may write those.
//! - It never reports the outcome of an asynchronous commit: librdkafka answers to a queue or to a callback that the
//!   wrapper does not set. [`AnswerQueue`] is such a queue.
//! - It does not report whether a failed message may have been stored.
//! - It has no way to ask for a topic's id, and never frees the cluster's.
//! - It asks for the commits of several groups only through as many clients.
//! - It never asks what the client may do with a topic or a group.
#![allow(unsafe_code)]

mod access;
mod groups;

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::{TopicPartitionList, bindings as sys};

pub(super) use self::access::{Allowed, allowed_on_group, allowed_on_topics};
pub(super) use self::groups::{GroupOffsets, group_names, group_offsets};
use super::waker::Waker;

/// Whether a message whose delivery failed is certainly not on the bus.
pub(super) fn certainly_not_stored(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the pointer is that of a message which `message` keeps alive; the call only reads from it.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status == sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// A message's headers, with invalid UTF-8 in names replaced.
pub(super) struct MessageHeaders<'a> {
    message: *const sys::rd_kafka_message_t,
    /// What librdkafka has parsed. It keeps headers, but parses a message without any again at each call, which takes a tenth of
    /// what a message of one event costs.
    parsed: OnceCell<Option<NonNull<sys::rd_kafka_headers_t>>>,
    _alive: PhantomData<&'a ()>,
}

impl<'a> MessageHeaders<'a> {
    /// # Safety
    /// It is a message that librdkafka made and that lives for `'a`.
    pub(super) unsafe fn of(message: *const sys::rd_kafka_message_t) -> Self {
        Self { message, parsed: OnceCell::new(), _alive: PhantomData }
    }

    pub(super) fn of_borrowed(message: &'a BorrowedMessage<'_>) -> Self {
        Self { message: message.ptr(), parsed: OnceCell::new(), _alive: PhantomData }
    }

    fn native(&self) -> Option<NonNull<sys::rd_kafka_headers_t>> {
        *self.parsed.get_or_init(|| self.parse())
    }

    fn parse(&self) -> Option<NonNull<sys::rd_kafka_headers_t>> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive as long as `self`; librdkafka writes one pointer, to headers that the message owns.
        let code = unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) };
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        NonNull::new(headers)
    }

    /// Hands over every name and value until `each` returns false. Both live as long as the message.
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
            // both are parts of the message's own memory, which is not changed.
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

/// Copies a list, with invalid UTF-8 replaced.
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

/// A queue of our own to which librdkafka answers requests. Records and rebalances do not pass through it, so that an answer
/// can be waited for without taking either.
///
/// It must be dropped before its client; where both are fields of one structure, a lifetime cannot express that, and the
/// order of the fields ensures it.
struct AnswerQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// An answer wakes it.
    waker: Option<Waker>,
    _not_shared: PhantomData<*mut ()>,
}

// SAFETY: librdkafka's queues may be used from any thread. That only one uses it at a time is what `&mut self` is for.
unsafe impl Send for AnswerQueue {}

impl AnswerQueue {
    fn new<C: ClientContext>(client: &Client<C>, waker: Option<&Waker>) -> Option<Self> {
        // SAFETY: the client is alive. The queue is ours until it is given back in `drop`.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(client.native_ptr()) })?;
        if let Some(waker) = waker {
            // SAFETY: the queue is alive; the byte is copied; the descriptor stays open until `drop` has taken it away.
            unsafe {
                sys::rd_kafka_queue_io_event_enable(queue.as_ptr(), waker.descriptor(), [1_u8].as_ptr().cast(), 1);
            }
        }
        Some(Self { queue, waker: waker.cloned(), _not_shared: PhantomData })
    }

    /// Waits for an event and hands it to `read`, which must copy what it keeps.
    fn poll<T>(&mut self, timeout: Duration, read: impl FnOnce(*mut sys::rd_kafka_event_t) -> T) -> Option<T> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event, if one comes, is ours until it is given back once, after `read`.
        unsafe {
            let event = NonNull::new(sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout))?.as_ptr();
            let answer = read(event);
            sys::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl Drop for AnswerQueue {
    fn drop(&mut self) {
        // SAFETY: the queue came from `rd_kafka_queue_new` and is given back once; before that it forgets the waker.
        unsafe {
            if self.waker.is_some() {
                sys::rd_kafka_queue_io_event_enable(self.queue.as_ptr(), -1, ptr::null(), 0);
            }
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// The answers to a consumer's commits. It must be dropped before its consumer, as [`AnswerQueue`] says.
pub(super) struct CommitAnswers(AnswerQueue);

/// The answer to one commit: the error of the whole request, and the outcome for each partition.
pub(super) struct CommitAnswer {
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) partitions: Vec<Element>,
}

impl CommitAnswers {
    pub(super) fn new<C: ClientContext>(client: &Client<C>, waker: &Waker) -> Option<Self> {
        AnswerQueue::new(client, Some(waker)).map(Self)
    }

    /// Starts a commit. Exactly one answer will come, unless the consumer is dropped first.
    pub(super) fn commit<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        offsets: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are alive; the list is copied by the call; without a callback the answer goes to
        // the queue, of which librdkafka holds a reference of its own until then.
        let code = unsafe {
            let queue = self.0.queue.as_ptr();
            sys::rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), queue, None, ptr::null_mut())
        };
        error_code(code).map_or(Ok(()), Err)
    }

    /// Waits for an answer.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<CommitAnswer> {
        let read = |event: *mut sys::rd_kafka_event_t| {
            // SAFETY: the event is alive, and so is the list inside it, which is copied.
            unsafe {
                (sys::rd_kafka_event_type(event) == sys::RD_KAFKA_EVENT_OFFSET_COMMIT).then(|| CommitAnswer {
                    error: error_code(sys::rd_kafka_event_error(event)),
                    partitions: native_elements(sys::rd_kafka_event_topic_partition_list(event)),
                })
            }
        };
        self.0.poll(timeout, read).flatten()
    }
}

/// What the brokers answer for one topic.
pub(super) struct TopicId {
    pub(super) topic: String,
    /// No other topic of the cluster ever has the same; 0 from brokers older than Kafka 2.8.
    pub(super) id: Result<u128, RDKafkaErrorCode>,
    /// How many partitions it has.
    pub(super) partitions: usize,
}

/// Asks for the ids of these topics, each named once, and waits for the answer, which may omit topics.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<TopicId>, RDKafkaErrorCode> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let Some(mut answers) = TopicIdAnswers::new(client, None) else { return Err(RDKafkaErrorCode::Fail) };
    answers.ask(client, topics, timeout)?;
    answers.poll(timeout).unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
}

/// The answers about topics' ids. It must be dropped before its client, as [`AnswerQueue`] says.
pub(super) struct TopicIdAnswers(AnswerQueue);

impl TopicIdAnswers {
    pub(super) fn new<C: ClientContext>(client: &Client<C>, waker: Option<&Waker>) -> Option<Self> {
        AnswerQueue::new(client, waker).map(Self)
    }

    /// Asks for the ids of these topics, each named once. Exactly one answer will come, at the latest after `timeout`, unless
    /// the client is dropped first.
    pub(super) fn ask<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<(), RDKafkaErrorCode> {
        let names: Result<Vec<CString>, _> = topics.iter().map(|topic| CString::new(*topic)).collect();
        let names = names.map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the client is alive, and so are the names, which the collection copies. Options and collection are made here
        // (librdkafka ends the process rather than answer null) and given back once each, after their last use: the request
        // has copies of them, and a reference of its own to the queue.
        unsafe {
            let rk = client.native_ptr();
            let options =
                sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(rk, collection, options, self.0.queue.as_ptr());
            sys::rd_kafka_TopicCollection_destroy(collection);
            sys::rd_kafka_AdminOptions_destroy(options);
        }
        Ok(())
    }

    /// Waits for an answer, which may omit topics.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<Result<Vec<TopicId>, RDKafkaErrorCode>> {
        // SAFETY: the event is alive, and everything read from it is copied.
        self.0.poll(timeout, |event| unsafe {
            match error_code(sys::rd_kafka_event_error(event)) {
                Some(code) => Err(code),
                None => Ok(described(event)),
            }
        })
    }
}

/// A timeout of a request, in milliseconds: an hour at most, as librdkafka accepts it.
fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).min(3_600_000)
}

/// # Safety
/// `event` is an event that librdkafka made and that is not given back during the call.
unsafe fn described(event: *mut sys::rd_kafka_event_t) -> Vec<TopicId> {
    let mut count = 0;
    // SAFETY: the event is alive; the result is null for an event of another kind, and a part of the event otherwise.
    let topics = unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Vec::new();
        }
        sys::rd_kafka_DescribeTopics_result_topics(result, &mut count)
    };
    if topics.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: librdkafka keeps `count` pointers there, each null or a description that is a part of the event.
    let topics = unsafe { slice::from_raw_parts(topics, count) };
    let topics = topics.iter().filter(|topic| !topic.is_null());
    let copy = |topic: &*const sys::rd_kafka_TopicDescription_t| {
        // SAFETY: a name ends with a zero; id, partitions, which are only counted, and error are parts of the description, the error
        // null where there is none.
        unsafe {
            let error = sys::rd_kafka_TopicDescription_error(*topic);
            let code = if error.is_null() { None } else { error_code(sys::rd_kafka_error_code(error)) };
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            let most = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let least = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            let mut partitions = 0;
            sys::rd_kafka_TopicDescription_partitions(*topic, &mut partitions);
            TopicId {
                partitions,
                topic: CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic)).to_string_lossy().into_owned(),
                id: code.map_or(Ok(u128::from(most) << 64 | u128::from(least)), Err),
            }
        }
    };
    topics.map(copy).collect()
}

/// The id of the cluster that the client talks to.
pub(super) fn cluster_id<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Option<String> {
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive; the text that it answers ends with a zero, is ours, and is given back once, after it is
    // copied.
    unsafe {
        let rk = client.native_ptr();
        let id = NonNull::new(sys::rd_kafka_clusterid(rk, timeout))?;
        let copy = CStr::from_ptr(id.as_ptr()).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(rk, id.as_ptr().cast());
        Some(copy)
    }
}

pub(super) fn error_code(code: sys::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| RDKafkaErrorCode::from(code))
}
