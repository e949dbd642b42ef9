//! What a VM is made from: the site's template, filled with what we know, and our own attributes on top.
