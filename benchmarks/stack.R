# z is y where sy = 1 and m where sm = 1; fid is the row it came from.
stack_equations <- function(d) {
  n <- nrow(d)
  top <- data.frame(fid = seq_len(n), id = d$id, x = d$x, m = d$m, z = d$y, sm = 0, sy = 1)
  s <- rbind(top, transform(top, z = d$m, sm = 1, sy = 0))
  transform(s, smx = sm * x, sym = sy * m, syx = sy * x)
}
