// Package demo shows Baton at work on three real nodes of the lab, measures it, does the same rollout by hand, and compares.
//
// What it holds Baton to is printed with the measured value and the goal; Run fails when one of them is not met. Safety is
// judged twice, independently: from the API by package observe, and by the power supplies' own log.
//
// Speed is judged by the median over nodes, so that one slow boot on a busy machine does not decide.
package demo
