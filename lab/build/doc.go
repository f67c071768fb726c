// Package build makes the parts of a lab out of Go modules and Debian packages, once, into a cache.
//
// Every part is a directory named after what it was made from (versions, architecture, a digest of its sources), so a part
// that is there is right, and a second start builds nothing.
//
// Guarantees:
//   - A part appears complete or not at all: it is made beside its place and renamed.
//   - Two builds at once do not disturb each other: the second waits for the first.
//   - What an interrupted build left is removed by the next one.
//   - Versions of dependencies are those that the component's own go.mod selects; sums are checked by the Go command.
//
// Not guaranteed:
//   - Old parts are never deleted. Remove the cache directory to get the space back.
//   - The Debian root file system is what the mirror serves on the day it is made.
package build
