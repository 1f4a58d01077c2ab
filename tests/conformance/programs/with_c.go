// Beside clocks.go: makes of it a program that is linked to the C library.
package main

import "C"
