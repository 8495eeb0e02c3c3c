# Singular optima of small mediation models, fitted with lme4.
# Rscript singular.R CASES_DIR OUT_DIR: for every CASES_DIR/NAME.csv (id, x, m, y) and NAME.json (how it was
# simulated) write OUT_DIR/singular_NAME.json. singular.py makes the cases and calls this script.
suppressMessages({
  library(lme4)
  library(jsonlite)
})

N_RANDOM_STARTS <- 6
RANK_TOLERANCE <- 1e-6 # relative to the largest eigenvalue; see rank_of

settings <- lmerControl(
  optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e6), calc.derivs = FALSE,
  check.nobs.vs.nRE = "ignore", check.nobs.vs.nlev = "ignore"
)

# The two equations on top of each other: z is y where sy = 1 and m where sm = 1; fid is the row it came from.
stack_equations <- function(d) {
  n <- nrow(d)
  top <- data.frame(fid = seq_len(n), id = d$id, x = d$x, m = d$m, z = d$y, sm = 0, sy = 1)
  bottom <- transform(top, z = d$m, sm = 1, sy = 0)
  s <- rbind(top, bottom)
  transform(s, smx = sm * x, sym = sy * m, syx = sy * x)
}

random_theta <- function(lower) {
  theta <- rnorm(length(lower), sd = 0.4)
  ifelse(lower == 0, abs(theta), theta)
}

# Best of several starts, then restarts around the best until the criterion stops falling.
minimize <- function(devfun, lower, start) {
  run <- function(theta) {
    minqa::bobyqa(theta, devfun, lower = lower, control = list(rhobeg = 0.1, rhoend = 1e-10, maxfun = 1e6))
  }
  starts <- list(start, 0.3 * start, 0.05 * start + (lower == 0) * 0.01)
  starts <- c(starts, replicate(N_RANDOM_STARTS, random_theta(lower), simplify = FALSE))
  runs <- lapply(starts, run)
  values <- vapply(runs, function(r) r$fval, 0)
  best <- runs[[which.min(values)]]
  for (round in 1:5) {
    moved <- best$par + rnorm(length(lower), sd = 0.02)
    again <- run(pmax(moved, lower))
    settled <- again$fval > best$fval - 1e-9
    if (again$fval < best$fval) best <- again
    if (settled && round > 1) break
  }
  list(optimum = best, values = values)
}

fit_model <- function(formula, data, reml) {
  parsed <- lFormula(formula, data, REML = reml, control = settings)
  devfun <- do.call(mkLmerDevfun, c(parsed, list(control = settings)))
  found <- minimize(devfun, parsed$reTrms$lower, parsed$reTrms$theta)
  best <- found$optimum
  devfun(best$par) # the environment of devfun must hold the best parameters before mkMerMod reads it
  opt <- list(par = best$par, fval = best$fval, conv = best$ierr, message = best$msg)
  fit <- mkMerMod(environment(devfun), opt, parsed$reTrms, parsed$fr)
  list(fit = fit, values = found$values)
}

# G, with rows and columns that have no variance left out, is scaled to unit diagonal before its rank is read.
rank_of <- function(G) {
  sd <- sqrt(diag(G))
  live <- sd > 1e-6 * max(sd)
  scaled <- G[live, live, drop = FALSE] / outer(sd[live], sd[live])
  values <- eigen(scaled, symmetric = TRUE, only.values = TRUE)$values
  list(scaled_eigenvalues = I(values), rank = sum(values > RANK_TOLERANCE * max(values)))
}

residual_variances <- function(fit) {
  vc <- as.data.frame(VarCorr(fit))
  base <- vc$vcov[vc$grp == "Residual"]
  extra <- vc[vc$grp == "fid", ]
  if (!nrow(extra)) return(list(Residual = base))
  add <- function(name) base + sum(extra$vcov[extra$var1 == name])
  list(m = add("sm"), y = add("sy"))
}

describe <- function(result, text) {
  fit <- result$fit
  reml <- isREML(fit)
  G <- VarCorr(fit)$id
  G <- matrix(G, nrow(G), dimnames = dimnames(G))
  spectrum <- rank_of(G)
  vc <- as.data.frame(VarCorr(fit))[, c("grp", "var1", "var2", "vcov")]
  list(
    formula = text, method = if (reml) "REML" else "ML", logLik = as.numeric(logLik(fit)), n_obs = nobs(fit),
    fixef = as.list(fixef(fit)), se = as.list(sqrt(diag(as.matrix(vcov(fit))))),
    varcorr = vc, residual_variances = residual_variances(fit),
    n_random = nrow(G), rank = spectrum$rank, singular = spectrum$rank < nrow(G),
    scaled_eigenvalues = spectrum$scaled_eigenvalues, is_singular_lme4 = isSingular(fit),
    logLik_by_start = I(-result$values / 2)
  )
}

terms_of <- "sm + smx + sy + sym + syx"
stacked_form <- function(fid) sprintf("z ~ 0 + %s + (0 + %s | id) + (0 + %s | fid)", terms_of, terms_of, fid)

# Stata's form has fid: sm, so its residual variance of m is at least that of y; the other form has the reverse.
fit_stacked <- function(s, reml) {
  forms <- lapply(c("sm", "sy"), function(fid) {
    text <- stacked_form(fid)
    describe(fit_model(as.formula(text), s, reml), text)
  })
  values <- vapply(forms, function(f) f$logLik, 0)
  better <- forms[[which.max(values)]]
  better$logLik_by_form <- list(fid_sm = values[1], fid_sy = values[2])
  better
}

fit_all <- function(d) {
  s <- stack_equations(d)
  fits <- list()
  for (reml in c(TRUE, FALSE)) {
    fits <- c(fits, list(fit_stacked(s, reml)))
    for (text in c("y ~ m + x + (m + x | id)", "m ~ x + (x | id)")) {
      fits <- c(fits, list(describe(fit_model(as.formula(text), d, reml), text)))
    }
  }
  fits
}

debian_version <- function(package) sub("\\.([0-9]+)$", "-\\1", as.character(packageVersion(package)))

write_reference <- function(csv, out) {
  set.seed(20061121)
  name <- sub("\\.csv$", "", basename(csv))
  how <- read_json(sub("\\.csv$", ".json", csv))
  top <- list(
    software = sprintf("lme4 %s, R %s", debian_version("lme4"), getRversion()),
    date = format(Sys.Date()), generator = "validation/generate/singular.R",
    optimizer = "bobyqa (minqa), rhoend 1e-10, the best of several starts", rank_tolerance = RANK_TOLERANCE
  )
  fits <- fit_all(read.csv(csv))
  path <- file.path(out, sprintf("singular_%s.json", name))
  write_json(c(top, how, list(fits = fits)), path, digits = NA, auto_unbox = TRUE, pretty = TRUE)
  for (f in fits) {
    cat(sprintf("%-12s %-4s %-24.24s %14.6f  rank %d of %d\n", name, f$method, f$formula, f$logLik, f$rank, f$n_random))
  }
}

args <- commandArgs(TRUE)
for (csv in sort(list.files(args[1], "\\.csv$", full.names = TRUE))) write_reference(csv, args[2])
