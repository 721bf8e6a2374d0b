//! What the client may do with topics and groups. The wrapper never asks the brokers for it.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::{AnswerQueue, error_code, millis};

/// What the client may do with a topic or a group.
pub(in super::super) struct Allowed {
    pub(in super::super) name: String,
    /// The operations by their numbers in Kafka's protocol.
    pub(in super::super) operations: Result<Vec<u32>, RDKafkaErrorCode>,
}

/// What the client may do with these topics, each named once; the answer may omit topics.
pub(in super::super) fn allowed_on_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<Allowed>, RDKafkaErrorCode> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let Some(mut answers) = AnswerQueue::new(client, None) else { return Err(RDKafkaErrorCode::Fail) };
    let names: Result<Vec<CString>, _> = topics.iter().map(|topic| CString::new(*topic)).collect();
    let names = names.map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: client and queue are alive, and so are the names, which the collection copies. Options and collection are made
    // here (librdkafka ends the process rather than answer null) and given back once each, after their last use: the request has
    // copies of them, and a reference of its own to the queue.
    unsafe {
        let rk = client.native_ptr();
        let options = options(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(rk, collection, options, answers.queue.as_ptr());
        sys::rd_kafka_TopicCollection_destroy(collection);
        sys::rd_kafka_AdminOptions_destroy(options);
    }
    // SAFETY: the event is alive, and everything read from it is copied.
    let answer = answers.poll(timeout, |event| unsafe {
        match error_code(sys::rd_kafka_event_error(event)) {
            Some(code) => Err(code),
            None => Ok(topics_in(event)),
        }
    });
    answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
}

/// What the client may do with a group, which need not exist.
pub(in super::super) fn allowed_on_group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Allowed, RDKafkaErrorCode> {
    let Some(mut answers) = AnswerQueue::new(client, None) else { return Err(RDKafkaErrorCode::Fail) };
    let name = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let mut pointer: *const c_char = name.as_ptr();
    // SAFETY: client, queue and name are alive, and the request has a copy of the name and a reference of its own to the queue.
    // The options are made here and given back once, after their last use.
    unsafe {
        let rk = client.native_ptr();
        let options = options(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout);
        sys::rd_kafka_DescribeConsumerGroups(rk, &mut pointer, 1, options, answers.queue.as_ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
    }
    // SAFETY: the event is alive, and everything read from it is copied.
    let answer = answers.poll(timeout, |event| unsafe {
        match error_code(sys::rd_kafka_event_error(event)) {
            Some(code) => Err(code),
            None => group_in(event).ok_or(RDKafkaErrorCode::Fail),
        }
    });
    answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
}

/// Options of a request that asks for the client's rights too. The caller gives them back.
///
/// # Safety
/// `rk` is a living client.
unsafe fn options(
    rk: *mut sys::rd_kafka_t,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
) -> *mut sys::rd_kafka_AdminOptions_t {
    // SAFETY: the client is alive, and the options are made for this kind of request. An error, which only another kind of request
    // would cause, is given back.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
        }
        options
    }
}

/// # Safety
/// `event` is an event that librdkafka made and that is not given back during the call.
unsafe fn topics_in(event: *mut sys::rd_kafka_event_t) -> Vec<Allowed> {
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
    let copy = |topic: &*const sys::rd_kafka_TopicDescription_t| {
        let mut count = 0;
        // SAFETY: a name ends with a zero; error and operations are parts of the description, and null where there are none.
        unsafe {
            let error = sys::rd_kafka_TopicDescription_error(*topic);
            let operations = sys::rd_kafka_TopicDescription_authorized_operations(*topic, &mut count);
            Allowed {
                name: CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic)).to_string_lossy().into_owned(),
                operations: allowed(error, operations, count),
            }
        }
    };
    topics.iter().filter(|topic| !topic.is_null()).map(copy).collect()
}

/// # Safety
/// As [`topics_in`].
unsafe fn group_in(event: *mut sys::rd_kafka_event_t) -> Option<Allowed> {
    let (mut groups, mut count) = (0, 0);
    // SAFETY: the event is alive; the result is null for an event of another kind, and a part of the event otherwise, and so are the
    // descriptions, as many as librdkafka counts. A name ends with a zero; error and operations are parts of the description, and
    // null where there are none.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return None;
        }
        let found = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut groups);
        if found.is_null() || groups == 0 {
            return None;
        }
        let group = *found;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        let operations = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
        Some(Allowed {
            name: CStr::from_ptr(sys::rd_kafka_ConsumerGroupDescription_group_id(group)).to_string_lossy().into_owned(),
            operations: allowed(error, operations, count),
        })
    }
}

/// # Safety
/// `error` is null or an error, and `operations` null or `count` operations, that librdkafka keeps during the call.
unsafe fn allowed(
    error: *const sys::rd_kafka_error_t,
    operations: *const sys::rd_kafka_AclOperation_t,
    count: usize,
) -> Result<Vec<u32>, RDKafkaErrorCode> {
    // SAFETY: as the caller promises.
    unsafe {
        if !error.is_null()
            && let Some(code) = error_code(sys::rd_kafka_error_code(error))
        {
            return Err(code);
        }
        if operations.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        Ok(slice::from_raw_parts(operations, count).iter().map(|operation| *operation as u32).collect())
    }
}
