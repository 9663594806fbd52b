//! What is to be known about the functions of this folder.

use promontory_sql::functions::doc::{Family, FunctionDoc};

const TIMESTAMP: (&str, &str) = ("timestamp", "timestamp; times of samples");
const VALUE: (&str, &str) = ("value", "number; values of samples");
const VALUE_OR_HISTOGRAM: (&str, &str) = ("value", "number, or native histogram; values of samples");
const WINDOW: (&str, &str) = (
    "start, end",
    "timestamps, the same for all rows of a group; samples outside `(start, end]` do not count",
);
const TWO: &str = "Less than two samples give NULL.";
const LIKE_PROMQL: &str = "As in PromQL.";
const WINDOWED: &str = "With a window, PromQL's value at `end` for the range `end - start`. PromQL has no form without a window.";

/// The functions' entries.
pub(in super::super) const DOCS: &[FunctionDoc] = &[
    FunctionDoc {
        name: "rate, increase",
        family: Family::Series,
        syntax: &[
            "rate(timestamp, value) → as value",
            "rate(timestamp, value, start, end) → as value",
            "increase(timestamp, value) → as value",
            "increase(timestamp, value, start, end) → as value",
        ],
        gives: "How much a counter went up, in all or per second. Where it fell it was reset, and is taken to have begun at 0. \
                Without a window, from the first sample to the last. With one, extrapolated to its ends where samples come close \
                enough to them.",
        arguments: &[TIMESTAMP, VALUE_OR_HISTOGRAM, WINDOW],
        odd_input: TWO,
        errors: "",
        differs: WINDOWED,
        example: "SELECT code, increase(timestamp, value), rate(timestamp, value)\n\
                  FROM http_requests_total WHERE timestamp > now() - interval '1 hour' GROUP BY code ORDER BY code;",
    },
    FunctionDoc {
        name: "delta",
        family: Family::Series,
        syntax: &["delta(timestamp, value) → as value", "delta(timestamp, value, start, end) → as value"],
        gives: "The difference between the last sample and the first, of a gauge. With a window, extrapolated to its ends.",
        arguments: &[TIMESTAMP, VALUE_OR_HISTOGRAM, WINDOW],
        odd_input: TWO,
        errors: "",
        differs: WINDOWED,
        example: "SELECT time_bucket('1 hour', timestamp) AS hour, delta(timestamp, value)\n\
                  FROM sensor_celsius GROUP BY hour ORDER BY hour;",
    },
    FunctionDoc {
        name: "irate, idelta",
        family: Family::Series,
        syntax: &["irate(timestamp, value) → as value", "idelta(timestamp, value) → as value"],
        gives: "Of the last two samples: how much a counter went up per second, and the difference.",
        arguments: &[TIMESTAMP, VALUE_OR_HISTOGRAM],
        odd_input: TWO,
        errors: "",
        differs: LIKE_PROMQL,
        example: "SELECT timestamp, irate(timestamp, value) OVER (ORDER BY timestamp ROWS 1 PRECEDING)\n\
                  FROM http_requests_total WHERE code = '200' AND timestamp > now() - interval '3 minutes' ORDER BY 1;",
    },
    FunctionDoc {
        name: "changes, resets",
        family: Family::Series,
        syntax: &[
            "changes(timestamp, value) → double precision",
            "resets(timestamp, value) → double precision",
        ],
        gives: "How often the value changed, and how often it fell.",
        arguments: &[TIMESTAMP, VALUE_OR_HISTOGRAM],
        odd_input: "One sample gives 0, none NULL. NaN after NaN is no change.",
        errors: "",
        differs: LIKE_PROMQL,
        example: "SELECT instance, changes(timestamp, value), resets(timestamp, value) FROM up GROUP BY instance ORDER BY 1;",
    },
    FunctionDoc {
        name: "deriv",
        family: Family::Series,
        syntax: &["deriv(timestamp, value) → double precision"],
        gives: "The slope of the straight line that fits the samples best (least squares), per second.",
        arguments: &[TIMESTAMP, VALUE],
        odd_input: TWO,
        errors: "",
        differs: LIKE_PROMQL,
        example: "SELECT round(deriv(timestamp, value) * 3600, 3) AS per_hour FROM sensor_celsius;",
    },
    FunctionDoc {
        name: "predict_linear",
        family: Family::Series,
        syntax: &[
            "predict_linear(timestamp, value, ahead) → double precision",
            "predict_linear(timestamp, value, ahead, at) → double precision",
        ],
        gives: "Where the straight line through the samples will be, so long after the last sample, or after `at`.",
        arguments: &[
            TIMESTAMP,
            VALUE,
            ("ahead", "number of seconds, or interval of days and less"),
            ("at", "timestamp, the same for all rows of a group"),
        ],
        odd_input: TWO,
        errors: "22000 for an interval with months.",
        differs: "With `at`, PromQL's value there. PromQL has no form without.",
        example: "SELECT code, predict_linear(timestamp, value, interval '1 hour', now()) AS in_an_hour\n\
                  FROM http_requests_total WHERE timestamp > now() - interval '30 minutes' GROUP BY code ORDER BY code;",
    },
    FunctionDoc {
        name: "first, last",
        family: Family::Series,
        syntax: &["first(timestamp, value) → as value", "last(timestamp, value) → as value"],
        gives: "The value at the oldest and at the newest time. Keeps one value, not all samples.",
        arguments: &[TIMESTAMP, ("value", "of any type")],
        odd_input: "No rows give NULL.",
        errors: "",
        differs: "`first_over_time` and `last_over_time` in PromQL.",
        example: "SELECT instance, first(timestamp, value), last(timestamp, value), last(timestamp, job)\n\
                  FROM up GROUP BY instance ORDER BY instance;",
    },
    FunctionDoc {
        name: "time_weighted_avg",
        family: Family::Series,
        syntax: &["time_weighted_avg(timestamp, value) → double precision"],
        gives: "The mean, each value weighted by the time until the next sample; the last sample says how long the one before it held.",
        arguments: &[TIMESTAMP, VALUE],
        odd_input: "One sample gives its value, none NULL.",
        errors: "",
        differs: "",
        example: "SELECT round(time_weighted_avg(timestamp, value), 3) AS by_time, round(avg(value), 3) AS by_sample FROM sensor_celsius;",
    },
];
