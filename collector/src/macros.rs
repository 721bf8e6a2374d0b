/// Raises a counter: `count!(name)`, `count!(name, value)`, each with tags after it.
///
/// ```
/// use tallybus::count;
/// let (route, bytes) = (String::from("/v1/sites"), 512u64);
///
/// count!("jobs.done");                                             // by 1
/// count!("jobs.done", 3);
/// count!("http.requests", route = "/v1/sites", status = 200);      // the same series each time: a nanosecond or so
/// count!("http.bytes", bytes, route = route, "http.method" = "GET");
/// ```
/// - The value is any unsigned integer ([`CountValue`](crate::CountValue)); left out it is 1; 0 does nothing.
/// - A tag's key is an identifier, or a string literal where it has to be; its value is any
///   [`TagValue`](crate::TagValue), borrowed. A tag whose value is empty is left out.
/// - The name is a literal wherever possible; an expression that gives text costs one more lookup.
///
/// Works before a collector is started, from libraries and from any thread; never fails. Text that no series can have
/// (control characters, too long) is changed to fit, and the log says so once.
#[macro_export]
macro_rules! count {
    ($name:tt $(, $key:tt = $tag:tt)* $(,)?) => {
        $crate::__count!([add 1u64] $name; $($key = $tag),*)
    };
    ($name:tt, $value:tt $(, $key:tt = $tag:tt)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:tt $(, $key:tt = $tag:expr)+ $(,)?) => {
        $crate::__count!([add 1u64] $name; $($key = $tag),+)
    };
    ($name:expr $(, $key:tt = $tag:expr)+ $(,)?) => {
        $crate::__count!([add 1u64] $name; $($key = $tag),+)
    };
    ($name:tt, $value:expr $(, $key:tt = $tag:tt)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:tt, $value:tt $(, $key:tt = $tag:expr)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:expr, $value:tt $(, $key:tt = $tag:expr)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:tt, $value:expr $(, $key:tt = $tag:expr)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:expr, $value:expr $(, $key:tt = $tag:expr)* $(,)?) => {
        $crate::__count!([add $crate::__count_value!($value)] $name; $($key = $tag),*)
    };
    ($name:expr $(,)?) => {
        $crate::__count!([add 1u64] $name;)
    };
    ($($other:tt)*) => {
        ::core::compile_error!(
            "expected `count!(\"name\")` or `count!(\"name\", value)`, then tags as `, key = value`"
        )
    };
}

/// A handle on one series: [`Counter`](crate::Counter). Names and tags are those of [`count!`](crate::count).
///
/// ```
/// let sent = tallybus::counter!("packets.sent", interface = "eth0");
/// for _ in 0..1_000 {
///     sent.increment();
/// }
/// sent.add(64);
/// ```
#[macro_export]
macro_rules! counter {
    ($name:tt $(, $key:tt = $tag:tt)* $(,)?) => {
        $crate::__count!([counter] $name; $($key = $tag),*)
    };
    ($name:tt $(, $key:tt = $tag:expr)+ $(,)?) => {
        $crate::__count!([counter] $name; $($key = $tag),+)
    };
    ($name:expr $(, $key:tt = $tag:expr)* $(,)?) => {
        $crate::__count!([counter] $name; $($key = $tag),*)
    };
    ($($other:tt)*) => {
        ::core::compile_error!("expected `counter!(\"name\")`, then tags as `, key = value`")
    };
}

// The caller's expressions are outside the blocks that hold items, so that no item can shadow a name in them.
#[doc(hidden)]
#[macro_export]
macro_rules! __count {
    ([add $value:expr] $name:literal; $($key:tt = $tag:literal),*) => {
        $crate::__private::add_static($crate::__count_site!($name; $($key = $tag),*), $value)
    };
    ([counter] $name:literal; $($key:tt = $tag:literal),*) => {
        $crate::__private::counter_static($crate::__count_site!($name; $($key = $tag),*))
    };
    ([add $value:expr] $name:literal; $($key:tt = $tag:expr),+) => {
        match $crate::__count_keys!(TagSite [$name,] $($key),+) {
            (site, order) => $crate::__private::add_tagged(
                site,
                order,
                $value,
                [$($crate::__private::as_str(&$crate::TagValue::text(&$tag))),+],
            ),
        }
    };
    ([counter] $name:literal; $($key:tt = $tag:expr),+) => {
        match $crate::__count_keys!(TagSite [$name,] $($key),+) {
            (site, order) => $crate::__private::counter_tagged(
                site,
                order,
                [$($crate::__private::as_str(&$crate::TagValue::text(&$tag))),+],
            ),
        }
    };
    ([add $value:expr] $name:expr; $($key:tt = $tag:expr),*) => {
        match $crate::__count_keys!(NameSite [] $($key),*) {
            (site, order) => $crate::__private::add_named(
                site,
                order,
                &$name,
                $value,
                [$($crate::__private::as_str(&$crate::TagValue::text(&$tag))),*],
            ),
        }
    };
    ([counter] $name:expr; $($key:tt = $tag:expr),*) => {
        match $crate::__count_keys!(NameSite [] $($key),*) {
            (site, order) => $crate::__private::counter_named(
                site,
                order,
                &$name,
                [$($crate::__private::as_str(&$crate::TagValue::text(&$tag))),*],
            ),
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __count_site {
    ($name:literal; $($key:tt = $tag:literal),*) => {{
        const KEYS: [&str; { let keys: &[&str] = &[$($crate::__count_key!($key)),*]; keys.len() }] =
            [$($crate::__private::checked_key($crate::__count_key!($key))),*];
        const ORDER: [usize; KEYS.len()] = $crate::__private::order(&KEYS);
        const SORTED: &[&str] = &$crate::__private::arranged(KEYS, ORDER);
        const VALUES: &[&str] = &$crate::__private::arranged([$(::core::concat!($tag)),*], ORDER);
        const _: () = { $($crate::__private::is_tag(&$tag);)* };
        static SITE: $crate::__private::StaticSite = $crate::__private::StaticSite::new($name, SORTED, VALUES);
        &SITE
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __count_keys {
    ($site:ident [$($name:tt)*] $($key:tt),*) => {{
        const KEYS: [&str; { let keys: &[&str] = &[$($crate::__count_key!($key)),*]; keys.len() }] =
            [$($crate::__private::checked_key($crate::__count_key!($key))),*];
        const ORDER: [usize; KEYS.len()] = $crate::__private::order(&KEYS);
        const SORTED: &[&str] = &$crate::__private::arranged(KEYS, ORDER);
        static SITE: $crate::__private::$site = $crate::__private::$site::new($($name)* SORTED);
        (&SITE, ORDER)
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __count_key {
    ($key:ident) => {
        ::core::stringify!($key)
    };
    ($key:literal) => {
        $key
    };
    ($($key:tt)*) => {
        ::core::compile_error!("a tag key must be an identifier or a string literal")
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __count_value {
    ($value:literal) => {{
        // A cast, so that `3`, `3u8` and `0x3` are all accepted.
        const COUNT: u64 = $crate::__private::checked_value(::core::stringify!($value), $value as u64);
        COUNT
    }};
    ($value:expr) => {
        $crate::CountValue::count($value)
    };
}
