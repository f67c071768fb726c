// Package window says when a node may be taken down: maintenance windows, each a
// cron expression with a duration and a time zone, and blackouts, ranges of dates on
// which nothing happens whatever the windows say.
//
// It is pure: it does no I/O, reads no clock and keeps no state between calls. Every
// question names the instant it is about. Time zones come from the Go runtime; a
// program that runs without /usr/share/zoneinfo imports time/tzdata.
//
// # When a window is open
//
// A window is open from each start that its cron expression names, for its duration in
// elapsed time, the end excluded. It belongs to its start: one that starts on Friday at
// 22:00 for 8h is open on Saturday at 05:00 and closed on Friday at 05:00. Windows may
// overlap and may be longer than their period; together they are open whenever one of
// them is. No window at all means always open.
//
// The expression has the five standard fields (minute, hour, day of month, month, day of
// week; Sunday is 0) or is one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly,
// @annually. As in crontab(5), when both day of month and day of week are restricted, a
// day that matches either will do. A field that begins with a star is not restricted: then a
// day has to match both.
//
// # Daylight saving time
//
//   - Durations are elapsed time. 8h from Friday 22:00 ends at 07:00 on the night clocks go
//     forward and at 05:00 on the night they go back.
//   - A start that the clock skips is moved by as much as the clock: where 02:00 becomes
//     03:00, a start at 02:30 is at 03:30 that day. No window is lost. (The rule of
//     RFC 5545, section 3.3.5.)
//   - A start that the clock shows twice is taken once, the first time. Only an expression
//     whose hour field matches every hour starts both times, since it means "each hour",
//     not a time of day.
//
// Whoever wants none of this uses UTC, the default.
//
// # Guarantees
//
//   - A blackout covers every instant whose date, in the blackout's zone, is in its range,
//     and wins over every window.
//   - Open, Next and Until agree: Next is the first instant after t at which Open turns
//     true, Until the first at which it turns false.
//   - A window that could never open is refused by New, together with every other fault.
//
// # Not guaranteed
//
//   - That what is begun in a window ends in it: the caller asks again before each act.
//   - That a government's change of the clock is known: the zones are as old as the binary.
//   - Next looks nine years ahead and Until sixty-two days.
package window
