//! What groups have committed and which groups there are. The wrapper asks for the commits of a client's own group only, one
//! answer after the other, and describes every group of the cluster when it lists them.

use std::ffi::{CStr, CString};
use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{TopicPartitionList, bindings as sys};

use super::{AnswerQueue, Element, error_code, millis, native_elements};

/// What a group has committed, for the partitions asked about.
pub(in super::super) struct GroupOffsets {
    pub(in super::super) group: String,
    pub(in super::super) partitions: Result<Vec<Element>, RDKafkaErrorCode>,
}

/// Asks for the commits of several groups, each named once, and waits until all have been answered. The requests, one for each
/// group, are under way together.
///
/// # Errors
/// One of the requests was not answered.
pub(in super::super) fn group_offsets<C: ClientContext>(
    client: &Client<C>,
    groups: &[(&str, TopicPartitionList)],
    timeout: Duration,
) -> Result<Vec<GroupOffsets>, RDKafkaErrorCode> {
    let Some(mut answers) = AnswerQueue::new(client, None) else { return Err(RDKafkaErrorCode::Fail) };
    for (group, partitions) in groups {
        let name = CString::new(*group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
        // SAFETY: client, name, list and queue are alive, and the request has copies of name and list and a reference of its
        // own to the queue. Options and request are made here (librdkafka ends the process rather than answer null) and given
        // back once each, after their last use.
        unsafe {
            let rk = client.native_ptr();
            let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
            let options = sys::rd_kafka_AdminOptions_new(rk, operation);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), partitions.ptr());
            sys::rd_kafka_ListConsumerGroupOffsets(rk, &mut request, 1, options, answers.queue.as_ptr());
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
            sys::rd_kafka_AdminOptions_destroy(options);
        }
    }
    let until = Instant::now() + timeout;
    let mut found = Vec::new();
    while found.len() < groups.len() {
        let left = until.saturating_duration_since(Instant::now());
        // SAFETY: the event is alive, and everything read from it is copied.
        let answer = answers.poll(left, |event| unsafe {
            match error_code(sys::rd_kafka_event_error(event)) {
                Some(code) => Err(code),
                None => Ok(offsets_in(event)),
            }
        });
        match answer {
            Some(offsets) => found.extend(offsets?),
            None if left.is_zero() => return Err(RDKafkaErrorCode::OperationTimedOut),
            None => {}
        }
    }
    Ok(found)
}

/// # Safety
/// `event` is an event that librdkafka made and that is not given back during the call.
unsafe fn offsets_in(event: *mut sys::rd_kafka_event_t) -> Vec<GroupOffsets> {
    let mut count = 0;
    // SAFETY: the event is alive; the result is null for an event of another kind, and a part of the event otherwise.
    let groups = unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event);
        if result.is_null() {
            return Vec::new();
        }
        sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count)
    };
    if groups.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: librdkafka keeps `count` pointers there, each null or a result that is a part of the event.
    let groups = unsafe { slice::from_raw_parts(groups, count) };
    let copy = |group: &*const sys::rd_kafka_group_result_t| {
        // SAFETY: a name ends with a zero; error and list are parts of the result, and null where there is none.
        unsafe {
            let error = sys::rd_kafka_group_result_error(*group);
            let code = if error.is_null() { None } else { error_code(sys::rd_kafka_error_code(error)) };
            GroupOffsets {
                group: CStr::from_ptr(sys::rd_kafka_group_result_name(*group)).to_string_lossy().into_owned(),
                partitions: match code {
                    Some(code) => Err(code),
                    None => Ok(native_elements(sys::rd_kafka_group_result_partitions(*group))),
                },
            }
        }
    };
    groups.iter().filter(|group| !group.is_null()).map(copy).collect()
}

/// The names of the cluster's groups that this client may see: one request to each broker.
///
/// # Errors
/// One of the brokers did not answer: groups would be left out.
pub(in super::super) fn group_names<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<Vec<String>, RDKafkaErrorCode> {
    let Some(mut answers) = AnswerQueue::new(client, None) else { return Err(RDKafkaErrorCode::Fail) };
    // SAFETY: client and queue are alive; the options are made here and given back once, after their last use.
    unsafe {
        let rk = client.native_ptr();
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
        let options = sys::rd_kafka_AdminOptions_new(rk, operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        sys::rd_kafka_ListConsumerGroups(rk, options, answers.queue.as_ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
    }
    // SAFETY: the event is alive, and everything read from it is copied.
    let answer = answers.poll(timeout, |event| unsafe {
        match error_code(sys::rd_kafka_event_error(event)) {
            Some(code) => Err(code),
            None => names_in(event),
        }
    });
    answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
}

/// # Safety
/// `event` is an event that librdkafka made and that is not given back during the call.
unsafe fn names_in(event: *mut sys::rd_kafka_event_t) -> Result<Vec<String>, RDKafkaErrorCode> {
    let (mut count, mut errors) = (0, 0);
    // SAFETY: the event is alive; the result is null for an event of another kind, and a part of the event otherwise. Errors and
    // groups are parts of the result: as many pointers as librdkafka counts, none of them null.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroups_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let failed = sys::rd_kafka_ListConsumerGroups_result_errors(result, &mut errors);
        if !failed.is_null() && errors > 0 {
            let first = slice::from_raw_parts(failed, errors)[0];
            return Err(error_code(sys::rd_kafka_error_code(first)).unwrap_or(RDKafkaErrorCode::Fail));
        }
        let groups = sys::rd_kafka_ListConsumerGroups_result_valid(result, &mut count);
        if groups.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        let name = |group: &*const sys::rd_kafka_ConsumerGroupListing_t| {
            CStr::from_ptr(sys::rd_kafka_ConsumerGroupListing_group_id(*group)).to_string_lossy().into_owned()
        };
        Ok(slice::from_raw_parts(groups, count).iter().map(name).collect())
    }
}
