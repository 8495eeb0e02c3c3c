# Time other software on one table (id, x, m, y) and print JSON.
# Rscript peers.R versions                          versions of R and of the packages
# Rscript peers.R PEER CSV REPEATS BUDGET_SECONDS   PEER: lme4_stacked nlme_stacked glmmtmb_stacked lme4_separate
# Every peer runs in a process of its own, with its default optimizer settings, so that peak memory is its own.

TERMS <- "sm + smx + sy + sym + syx"
PACKAGE <- c(lme4_stacked = "lme4", nlme_stacked = "nlme", glmmtmb_stacked = "glmmTMB", lme4_separate = "lme4")

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)[1])), "stack.R"))

# Stata's form: the residual variance of m is that of y plus the variance of (0 + sm | fid).
lme4_stacked <- function(stacked, d) {
  formula <- as.formula(sprintf("z ~ 0 + %s + (0 + %s | id) + (0 + sm | fid)", TERMS, TERMS))
  control <- lme4::lmerControl(check.nobs.vs.nRE = "ignore")
  function() logLik(lme4::lmer(formula, stacked, control = control))
}

nlme_stacked <- function(stacked, d) {
  fixed <- as.formula(sprintf("z ~ 0 + %s", TERMS))
  random <- as.formula(sprintf("~ 0 + %s | id", TERMS))
  control <- nlme::lmeControl(maxIter = 200, msMaxIter = 200, msMaxEval = 1000) # the defaults often stop
  function() {
    fit <- do.call(nlme::lme, list(fixed = fixed, random = random, data = stacked, control = control,
                                   weights = nlme::varIdent(form = ~ 1 | sm)))
    logLik(fit)
  }
}

glmmtmb_stacked <- function(stacked, d) {
  formula <- as.formula(sprintf("z ~ 0 + %s + (0 + %s | id)", TERMS, TERMS))
  function() logLik(glmmTMB::glmmTMB(formula, dispformula = ~ 0 + sm + sy, data = stacked, REML = TRUE))
}

# Two models, each on its own: no covariance of random effects across the equations.
lme4_separate <- function(stacked, d) {
  function() {
    m <- lme4::lmer(m ~ x + (1 + x | id), d)
    y <- lme4::lmer(y ~ m + x + (1 + m + x | id), d)
    as.numeric(logLik(m)) + as.numeric(logLik(y))
  }
}

# Megabytes from the kernel (Linux); NA elsewhere.
memory <- function(field) {
  if (!file.exists("/proc/self/status")) return(NA)
  line <- grep(paste0("^", field), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}

time_fit <- function(fit, repeats, budget) {
  times <- numeric()
  messages <- character()
  while (length(times) < repeats + 1 && sum(times) < budget) {
    gc(FALSE)
    start <- proc.time()[["elapsed"]]
    loglik <- withCallingHandlers(fit(), warning = function(w) {
      messages <<- union(messages, conditionMessage(w))
      invokeRestart("muffleWarning")
    }, message = function(m) {
      messages <<- union(messages, trimws(conditionMessage(m)))
      invokeRestart("muffleMessage")
    })
    times <- c(times, proc.time()[["elapsed"]] - start)
  }
  if (length(times) > 1) times <- times[-1] # the first one warms up
  list(times = I(times), llf = as.numeric(loglik), note = paste(messages, collapse = "; "))
}

versions <- function() {
  packages <- c("lme4", "nlme", "glmmTMB", "TMB", "Matrix", "nloptr")
  found <- packages[vapply(packages, requireNamespace, TRUE, quietly = TRUE)]
  list(R = as.character(getRversion()), BLAS = basename(extSoftVersion()[["BLAS"]]),
       packages = lapply(setNames(found, found), function(p) as.character(packageVersion(p))))
}

main <- function(args) {
  if (args[1] == "versions") return(versions())
  if (!requireNamespace(PACKAGE[[args[1]]], quietly = TRUE)) {
    return(list(error = sprintf("R package %s is not installed", PACKAGE[[args[1]]])))
  }
  d <- read.csv(args[2])
  stacked <- stack_equations(d)
  fit <- match.fun(args[1])(stacked, d)
  baseline <- memory("VmRSS")
  result <- tryCatch(time_fit(fit, as.integer(args[3]), as.numeric(args[4])),
                     error = function(e) list(error = conditionMessage(e)))
  c(result, list(baseline_mb = baseline, peak_mb = memory("VmHWM")))
}

cat(jsonlite::toJSON(main(commandArgs(TRUE)), auto_unbox = TRUE, digits = NA, na = "null"))
